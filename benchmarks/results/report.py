"""Results as one page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.results.figures import NOTHING, in_units, unit_name
from benchmarks.results.run_file import Figures, Run, is_number

STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; --head: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
p, dt, figcaption, summary, small { color: var(--dim) }
small { font-weight: normal; padding-left: .5rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem }
dd { margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid var(--line) }
th { background: var(--head); vertical-align: bottom }
.number { text-align: right }
figure { margin: 1.5rem 0 }
svg { width: 100%; height: auto; max-width: 50rem }
"""


def page(run: Run, columns: Sequence[str]) -> str:
    """The HTML of one run. `columns`: the figures of the first table; () are all of them."""
    names = [name for name in columns if any(name in row for row in run.rows)]
    everything = f"<details><summary>All figures</summary>{table(run.rows)}</details>"
    return document(
        f"Benchmark: {run.bench}",
        (
            facts(run_facts(run)),
            "<h2>Results</h2>",
            *_constants(run.rows, names),
            table(run.rows, names) + everything if names else table(run.rows),
            *plots(run),
        ),
    )


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts that are HTML; the title is not."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    body = "\n".join((f"<h1>{escape(title)}</h1>", *parts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def run_facts(run: Run) -> Mapping[str, str]:
    """What a reader must know of a run, each fact on a line."""
    return {
        "started": f"{run.started}, {run.seconds:.0f} s in all",
        "Dreamer": f"{run.dreamer}, commit {run.commit or 'unknown'}",
        "hardware": _list(run.hardware),
        "arguments": _list(run.arguments) or "none",
    }


def facts(named: Mapping[str, str]) -> str:
    lines = (f"<dt>{escape(name)}</dt><dd>{escape(told)}</dd>" for name, told in named.items())
    return f"<dl>{''.join(lines)}</dl>"


def table(rows: Sequence[Figures], names: Iterable[str] = ()) -> str:
    """Of these figures; of all that any row has, where none are named."""
    names = tuple(names) or tuple(dict.fromkeys(name for row in rows for name in row))
    numeric = {name for name in names if any(is_number(row.get(name)) for row in rows)}

    def line(kind: str, told: Mapping[str, str]) -> str:
        cells = (_cell(kind, text, is_numeric=name in numeric) for name, text in told.items())
        return f"<tr>{''.join(cells)}</tr>"

    head = line("th", {name: unit_name(name) for name in names})
    body = (line("td", {name: in_units(name, row.get(name)) for name in names}) for row in rows)
    return f'<div class="wide"><table>{head}{"".join(body)}</table></div>'


def plots(run: Run) -> Iterator[str]:
    from benchmarks.results.plots import svgs  # matplotlib takes a second to import

    for title, told, svg in svgs(run):
        yield f"<h2>{escape(title)}</h2><p>{escape(told)}</p><figure>{svg}</figure>"


def _constants(rows: Sequence[Figures], names: list[str]) -> Iterator[str]:
    """Takes those out of `names` that are the same in all rows, and tells them in a line."""
    same = {name: rows[0].get(name) for name in names if len({repr(r.get(name)) for r in rows}) < 2}
    if len(rows) > 1 and same:
        names[:] = [name for name in names if name not in same]
        yield f"<p>In all rows: {escape(_list(same))}.</p>"


def _list(named: Mapping[str, Any]) -> str:
    told = {name: in_units(name, value) for name, value in named.items()}
    return ", ".join(f"{unit_name(name)} {each}" for name, each in told.items() if each != NOTHING)


def _cell(kind: str, text: str, *, is_numeric: bool) -> str:
    shown = ' class="number"' if is_numeric else ""
    return f"<{kind}{shown}>{escape(text)}</{kind}>"
