"""Two runs of one bench side by side: rows that measured the same thing, and what they came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.results import report
from benchmarks.results.document import BadInput
from benchmarks.results.figures import NOTHING, in_units, unit_name
from benchmarks.results.run_file import Figures, Run, differing, is_number, label

NOW, PROPOSED = "now", "proposed"  # of `tune`: settings, which nobody has measured
LESS_TIME = "under 1 is better: less time"
LESS_MEMORY = "under 1 is better: less memory"
LESS_OFF = "under 1 is better: predictions are nearer"
MORE_WORK = "over 1 is better: more in the same time"
CHARTS: Mapping[str, Mapping[str, str]] = {  # of each bench: none says the same as another
    "engine": {
        "seconds": LESS_TIME,
        "overhead_ms": LESS_TIME,
        "measured_bytes": LESS_MEMORY,
        "resident_bytes": LESS_MEMORY,
    },
    "worker": {
        "images_per_hour": MORE_WORK,
        "busy_percent": "over 1 is better: the device waits less",
        "p50_seconds": LESS_TIME,
        "p95_seconds": LESS_TIME,
        "bridge_cpu_ms": LESS_TIME,
    },
    "forms": {"p50_seconds": LESS_TIME, "p95_seconds": LESS_TIME, "slowest_seconds": LESS_TIME},
    "compare": {
        "seconds": LESS_TIME,
        "ratio": "under 1 is better: less time than before beside the same program",
        "cpu_seconds": LESS_TIME,
        "peak_bytes": LESS_MEMORY,
    },
    "scale": {
        "jobs_per_second": MORE_WORK,
        "bridge_cpu_ms": LESS_TIME,
        "p50_seconds": LESS_TIME,
        "p95_seconds": LESS_TIME,
        "end_rss_bytes": LESS_MEMORY,
        "ledger_bytes": "under 1 is better: a smaller file",
    },
    "memory": {"measured_bytes": LESS_MEMORY},
    "judge": {"picture_seconds": LESS_TIME, "memory_bytes": LESS_MEMORY},
    "switch": {"same_model_seconds": LESS_TIME, "switch_seconds": LESS_TIME},
    "pages": {"page_percent": LESS_TIME},
    "seconds": {
        "median_percent": LESS_OFF,
        "p90_percent": LESS_OFF,
        "within_percent": "over 1 is better: more jobs keep to what was predicted",
    },
    "tune": {},
    "card": {},  # of some figures more is better, of others less
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One kind of work, measured twice."""

    told: str
    old: Figures
    new: Figures

    def ratio(self, name: str) -> float | None:
        """New to old; None where one of them has no such measurement."""
        old, new = self.old.get(name), self.new.get(name)
        is_measured = name != PROPOSED and is_number(old) and is_number(new)
        return new / old if is_measured and old else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`results`: names of what either run came to. `only_…`: rows without their like."""

    old: Run
    new: Run
    pairs: tuple[Pair, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    results: tuple[str, ...]

    @property
    def differences(self) -> tuple[str, ...]:
        """What else is not the same: ratios may come from it."""
        sides = {
            "hardware": (self.old.hardware, self.new.hardware),
            "argument": (self.old.arguments, self.new.arguments),
        }
        return tuple(line for kind, both in sides.items() for line in _unlike(kind, *both))


def compare(old: Run, new: Run) -> Comparison:
    """Rows are matched by the features that both runs know. Raises BadInput for two benches."""
    if old.bench != new.bench:
        raise BadInput(f"a run of {old.bench} can't be compared with one of {new.bench}")
    rows = (*old.rows, *new.rows)
    in_both = [name for name in old.features if name in new.features]
    special = differing(rows, in_both)
    waiting: dict[str, list[Figures]] = defaultdict(list)
    for row in new.rows:
        waiting[_key(row, in_both)].append(row)
    pairs: list[Pair] = []
    lonely: list[str] = []
    for row in old.rows:
        told, like = label(row, special) or old.bench, waiting[_key(row, in_both)]
        if like:
            pairs.append(Pair(told, row, like.pop(0)))
        else:
            lonely.append(told)
    left = [label(row, special) or new.bench for like in waiting.values() for row in like]
    return Comparison(old, new, tuple(pairs), tuple(lonely), tuple(left), _results(old, new))


def _results(old: Run, new: Run) -> tuple[str, ...]:
    rows, features = (*old.rows, *new.rows), {*old.features, *new.features}
    names = dict.fromkeys(name for row in rows for name in row if name not in features)
    return tuple(name for name in names if _is_result(name, rows))


def _is_result(name: str, rows: Sequence[Figures]) -> bool:
    return name == PROPOSED or (name != NOW and any(is_number(row.get(name)) for row in rows))


def table(comparison: Comparison, names: Sequence[str]) -> list[Figures]:
    """A row for each pair and each of these results that one of them has."""
    return [
        _line(pair, name)
        for pair in comparison.pairs
        for name in names
        if pair.old.get(name) is not None or pair.new.get(name) is not None
    ]


def _line(pair: Pair, name: str) -> Figures:
    sides = {"old": pair.old, "new": pair.new}
    told = {side: in_units(name, row.get(name)) for side, row in sides.items()}
    measured = {} if name == PROPOSED else {"ratio": pair.ratio(name)}
    return {"of": pair.told, "figure": unit_name(name), **told, **measured}


def chosen(comparison: Comparison, columns: Sequence[str]) -> tuple[str, ...]:
    """The results among a bench's columns; all of them where it has no columns."""
    return tuple(name for name in comparison.results if not columns or name in columns)


def page(comparison: Comparison, files: tuple[str, str]) -> str:
    """The HTML: what is not the same, ratios as bars, and all figures.

    `files`: the names of the old run's and of the new one's.
    """
    old, new = comparison.old, comparison.new
    sides = (("Old", files[0], old), ("New", files[1], new))
    only = {"Only in the old run": comparison.only_old, "Only in the new run": comparison.only_new}
    return report.document(
        f"Benchmark: {new.bench}, two runs",
        (
            *(f"<h2>{side}: {escape(file)}</h2>{report.facts(report.run_facts(run))}"
              for side, file, run in sides),
            *_list("Not the same", comparison.differences),
            *(part for title, rows in only.items() for part in _list(title, rows)),
            *_bars(comparison),
            "<h2>All results</h2>",
            report.table(table(comparison, comparison.results)),
        ),
    )  # fmt: skip


def _bars(comparison: Comparison) -> Iterator[str]:
    from benchmarks.results.plots import ratios  # matplotlib takes a second to import

    for name, better in CHARTS[comparison.new.bench].items():
        rows = [_bar(pair, name) for pair in comparison.pairs if pair.ratio(name) is not None]
        if rows:
            title = f"{escape(unit_name(name))}: new to old <small>{better}</small>"
            yield f"<h2>{title}</h2><figure>{ratios(rows, ['of'])}</figure>"


def _bar(pair: Pair, name: str) -> Figures:
    """With the spread of the repeats, where they tell the fastest and the slowest one."""
    bar: dict[str, object] = {"of": pair.told, "ratio": pair.ratio(name)}
    spread = f"fastest_{name}", f"slowest_{name}"
    if all(is_number(row.get(end)) and row[end] for row in (pair.old, pair.new) for end in spread):
        fastest, slowest = spread
        bar["lowest_ratio"] = pair.new[fastest] / pair.old[slowest]
        bar["highest_ratio"] = pair.new[slowest] / pair.old[fastest]
    return bar


def _key(row: Figures, names: Sequence[str]) -> str:
    return repr([_wanted(row, name) for name in names])


def _wanted(row: Figures, name: str) -> object:
    """A feature. Of jobs, those that failed were wanted, too."""
    value = row.get(name)
    return value + (row.get("faulted") or 0) if name == "jobs" and value is not None else value


def _unlike(kind: str, old: Figures, new: Figures) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            was, now = (in_units(name, side.get(name)) or NOTHING for side in (old, new))
            yield f"{kind} {unit_name(name)}: {was}, now {now}"


def _list(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"<h2>{title}</h2><ul>{''.join(f'<li>{escape(line)}' for line in lines)}</ul>"
