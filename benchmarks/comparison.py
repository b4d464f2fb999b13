"""Two runs of one bench side by side: rows that measured the same thing, and what they came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks import report
from benchmarks.document import BadInput
from benchmarks.figures import NOTHING, in_units, unit_name
from benchmarks.run_file import Figures, Run, differing, feature_names, is_number, label


@dataclass(frozen=True, slots=True)
class Pair:
    """One kind of work, measured twice."""

    told: str
    old: Figures
    new: Figures

    def ratio(self, name: str) -> float | None:
        """New to old; None where one of them has no such number."""
        old, new = self.old.get(name), self.new.get(name)
        return new / old if is_number(old) and is_number(new) and old else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`results`: names of the numbers that either run has. `only_…`: rows without their like."""

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
    in_both = [name for name in feature_names(rows) if _has(old, name) and _has(new, name)]
    special = [name for name in differing(rows) if name in in_both]
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
    names = dict.fromkeys(name for row in rows for name in row)
    features = set(feature_names(rows))
    numbers = (name for name in names if any(is_number(row.get(name)) for row in rows))
    results = tuple(name for name in numbers if name not in features)
    return Comparison(old, new, tuple(pairs), tuple(lonely), tuple(left), results)


def table(comparison: Comparison, names: Sequence[str]) -> list[Figures]:
    """A row for each pair and each of these results that one of them has."""
    return [
        {
            "of": pair.told,
            "figure": unit_name(name),
            "old": in_units(name, pair.old.get(name)),
            "new": in_units(name, pair.new.get(name)),
            "ratio": pair.ratio(name),
        }
        for pair in comparison.pairs
        for name in names
        if pair.old.get(name) is not None or pair.new.get(name) is not None
    ]


def chosen(comparison: Comparison, columns: Sequence[str]) -> tuple[str, ...]:
    """The results among a bench's columns; all of them where it has no columns."""
    return tuple(name for name in comparison.results if not columns or name in columns)


def page(comparison: Comparison, columns: Sequence[str]) -> str:
    """The HTML: what is not the same, ratios as bars, and all figures."""
    old, new = comparison.old, comparison.new
    only = {"Only in the old run": comparison.only_old, "Only in the new run": comparison.only_new}
    return report.document(
        f"Benchmark: {new.bench}, two runs",
        (
            *(f"<h2>{side}</h2>{report.facts(report.run_facts(run))}" for side, run in
              (("Old", old), ("New", new))),
            *_list("Not the same", comparison.differences),
            *(part for title, rows in only.items() for part in _list(title, rows)),
            *_bars(comparison, chosen(comparison, columns)),
            "<h2>All results</h2>",
            report.table(table(comparison, comparison.results)),
        ),
    )  # fmt: skip


def _bars(comparison: Comparison, names: Sequence[str]) -> Iterator[str]:
    from benchmarks.plots import ratios  # matplotlib takes a second to import

    for name in names:
        rows = [_bar(pair, name) for pair in comparison.pairs if pair.ratio(name) is not None]
        if rows:
            title = escape(f"{unit_name(name)}: new to old")
            yield f"<h2>{title}</h2><figure>{ratios(rows)}</figure>"


def _bar(pair: Pair, name: str) -> Figures:
    """With the spread of the repeats, where they tell the fastest and the slowest one."""
    bar: dict[str, object] = {"of": pair.told, "ratio": pair.ratio(name)}
    spread = f"fastest_{name}", f"slowest_{name}"
    if all(is_number(row.get(end)) and row[end] for row in (pair.old, pair.new) for end in spread):
        fastest, slowest = spread
        bar["lowest_ratio"] = pair.new[fastest] / pair.old[slowest]
        bar["highest_ratio"] = pair.new[slowest] / pair.old[fastest]
    return bar


def _has(run: Run, name: str) -> bool:
    return any(name in row for row in run.rows)


def _key(row: Figures, names: Sequence[str]) -> str:
    return repr([row.get(name) for name in names])


def _unlike(kind: str, old: Figures, new: Figures) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            was, now = (in_units(name, side.get(name)) or NOTHING for side in (old, new))
            yield f"{kind} {unit_name(name)}: {was}, now {now}"


def _list(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"<h2>{title}</h2><ul>{''.join(f'<li>{escape(line)}' for line in lines)}</ul>"
