"""Plots of a run's rows, as SVG inside a page: which there are depends on the rows' figures.

What stands in a plot takes the colour of the page's text, so that it can be read in the light and
in the dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.results.figures import MIB, in_units, unit_name
from benchmarks.results.run_file import Figures, Run, differing, is_number, label

INK = "#010203"  # stands for the text's colour until the SVG is written
WIDTH, ROW_HEIGHT = 8.0, 0.32  # inches
STYLE: Mapping[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dreamer",  # the same plot is the same file
    "font.size": 9,
}

Rows = Sequence[Figures]
Names = Sequence[str]  # of the rows' features
Axes = Any  # matplotlib's own types leave its keyword arguments open


@dataclass(frozen=True, slots=True)
class Plot:
    """A kind of plot: for the rows that `suits` picks, where they are enough for it."""

    title: str
    told: str  # how it is read
    suits: Callable[[Figures], bool]
    draw: Callable[[Axes, Rows, Names], None]
    enough: Callable[[Rows, Names], bool] = lambda rows, _names: bool(rows)
    is_bars: bool = False  # a bar for each row: its height grows with them


def svgs(run: Run) -> Iterator[tuple[str, str, str]]:
    """Title, explanation and SVG of each plot that the rows have the figures for."""
    for plot in PLOTS:
        suited = [row for row in run.rows if plot.suits(row)]
        if plot.enough(suited, run.features):
            yield plot.title, plot.told, _svg(plot, suited, run.features)


def ratios(rows: Rows, names: Names) -> str:
    """The SVG of bars for rows with a `ratio`."""
    return _svg(next(plot for plot in PLOTS if plot.draw is _draw_ratios), rows, names)


def _svg(plot: Plot, rows: Rows, names: Names) -> str:
    height = 1.3 + ROW_HEIGHT * len(rows) if plot.is_bars else 4.0
    with mpl.rc_context(dict(STYLE)), warnings.catch_warnings():  # pyright: ignore
        warnings.filterwarnings("ignore", "Glyph")  # the browser's fonts have more letters
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        plot.draw(figure.add_subplot(), rows, names)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})  # pyright: ignore
    return _inline(written.getvalue(), plot.title)


def _inline(svg: str, title: str) -> str:
    """Without what only a file of its own needs."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    named = f'<svg role="img" aria-label="{escape(title)}"'
    return svg.replace("<svg", named, 1).replace(INK, "currentColor")


# ---- throughput over the batch ---------------------------------------------------------------

_MEMBERS = {"job.images": "of one job", "job.together": "of jobs that share it"}


def _batch_lines(rows: Rows, names: Names) -> list[tuple[str, list[Figures]]]:
    """For each way to fill a batch, lines of the rows that fill it in no other way."""
    lines = [
        (way, line)
        for way, other in zip(_MEMBERS, reversed(_MEMBERS), strict=True)
        for line in _lines([row for row in rows if row[other] == 1], names, way)
    ]
    kinds = _kinds([line for _, line in lines], names, *_MEMBERS)
    return [
        (_joined(kind, f"pictures {_MEMBERS[way]}"), line)
        for kind, (way, line) in zip(kinds, lines, strict=True)
    ]


def _lines(rows: Rows, names: Names, along: str) -> list[list[Figures]]:
    """Rows that differ in the feature `along` alone, at least two of them, in its order."""
    lines: dict[str, list[Figures]] = defaultdict(list)
    others = [name for name in names if name != along]
    for row in rows:
        lines[repr([row.get(name) for name in others])].append(row)
    long = (line for line in lines.values() if len({row[along] for row in line}) > 1)
    return [sorted(line, key=lambda row: row[along]) for line in long]


def _kinds(lines: Sequence[Rows], names: Names, *along: str) -> list[str]:
    """What each line is about, where that is not the same in all of them."""
    others = (name for name in names if name not in along)
    special = differing((line[0] for line in lines), others)
    return [label(line[0], special) for line in lines]


def _joined(kind: str, told: str) -> str:
    return f"{kind}: {told}" if kind else told


def _draw_throughput(axes: Axes, rows: Rows, names: Names) -> None:
    for name, line in _batch_lines(rows, names):
        sizes = [_pictures(row) for row in line]
        speeds = [row["images_per_second"] for row in line]
        axes.plot(sizes, speeds, marker="o", label=name)
    axes.set(xlabel="pictures in the batch", ylabel="pictures per second")
    _from_zero(axes)


# ---- bars ------------------------------------------------------------------------------------


def _labels(axes: Axes, rows: Rows, names: Names) -> list[int]:
    """A place for each row, the first on top."""
    special = differing(rows, names)
    places = list(range(len(rows)))
    axes.set_yticks(places, [label(row, special) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    return places


def _shares(prefix: str, scale: Callable[[Figures], float], told: str) -> Callable[..., None]:
    """Stacked bars of all figures under `prefix`, each divided by the row's `scale`."""

    def draw(axes: Axes, rows: Rows, names: Names) -> None:
        places = _labels(axes, rows, names)
        left = [0.0] * len(rows)
        for name in dict.fromkeys(key for row in rows for key in row if key.startswith(prefix)):
            widths = [(row.get(name) or 0.0) / scale(row) for row in rows]
            axes.barh(places, widths, left=left, label=name.removeprefix(prefix))
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set_xlabel(told)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6)

    return draw


def _pictures(row: Figures) -> float:
    return row.get("job.images", 1) * row.get("job.together", 1)


def _draw_ratios(axes: Axes, rows: Rows, names: Names) -> None:
    """A bar for each ratio; its whisker goes from the lowest to the highest one.

    Each program has a colour of its own, where there are several.
    """
    places = _labels(axes, rows, names)
    peers = list(dict.fromkeys(row.get("peer") for row in rows))
    for place, row in zip(places, rows, strict=True):
        ratio = row["ratio"]
        low, high = (_number(row, name) for name in ("lowest_ratio", "highest_ratio"))
        axes.barh(place, ratio, color=f"C{peers.index(row.get('peer'))}")
        if low < high:
            spread = (max(0, ratio - low),), (max(0, high - ratio),)
            axes.errorbar(ratio, place, xerr=spread, color=INK, capsize=3)
        at = max(ratio, high), place
        beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{ratio:.3g}", at, **beside)
    axes.axvline(1, color=INK, linestyle="--", linewidth=1)
    axes.margins(x=0.1)
    axes.set(xlabel="ratio", xlim=(0, None))


def _number(row: Figures, name: str) -> float:
    """The ratio itself where there is no spread."""
    return row[name] if is_number(row.get(name)) else row["ratio"]


# ---- points ----------------------------------------------------------------------------------


def _draw_memory(axes: Axes, rows: Rows, _names: Names) -> None:
    predicted = [row["predicted_bytes"] / MIB for row in rows]
    measured = [row["measured_bytes"] / MIB for row in rows]
    most = max(*predicted, *measured)
    axes.plot((0, most), (0, most), color=INK, linestyle="--", linewidth=1, label="as predicted")
    axes.scatter(predicted, measured, label="a kind of job")
    axes.set(xlabel="predicted, MiB", ylabel="measured, MiB")
    axes.legend(loc="upper left")


# What a job costs, and what there is after so many of them.
_COSTS = ("seconds_per_job", "bridge_cpu_ms", "end_rss_bytes", "ledger_bytes")


def _draw_costs(axes: Axes, rows: Rows, names: Names) -> None:
    """Each line in multiples of its first point: the units differ."""
    lines = _lines(rows, names, "jobs")
    for kind, line in zip(_kinds(lines, names, "jobs"), lines, strict=True):
        for name in _COSTS:
            told = [(row["jobs"], row[name]) for row in line if is_number(row.get(name))]
            if len(told) > 1 and told[0][1]:
                first = told[0][1]
                counts, costs = zip(*((jobs, cost / first) for jobs, cost in told), strict=True)
                of = _joined(kind, f"{unit_name(name)}, first {in_units(name, first)}")
                axes.plot(counts, costs, marker="o", label=of)
    axes.set(xlabel="jobs", ylabel="in multiples of the first point")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    _from_zero(axes)


def _from_zero(axes: Axes) -> None:
    """With room for the legend above the lines."""
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.legend(loc="upper left", ncols=2)


def _has_numbers(*names: str) -> Callable[[Figures], bool]:
    return lambda row: all(is_number(row.get(name)) for name in names)


def _has_any(prefix: str) -> Callable[[Figures], bool]:
    return lambda row: any(name.startswith(prefix) for name in row)


PLOTS = (
    Plot(
        "Throughput over the batch",
        "Pictures a second by how many are made at once.",
        _has_numbers("images_per_second", *_MEMBERS),
        _draw_throughput,
        enough=lambda rows, names: bool(_batch_lines(rows, names)),
    ),
    Plot(
        "Seconds of a picture, by phase",
        "What the graph's nodes did in the time that one picture takes.",
        _has_any("phases."),
        _shares("phases.", _pictures, "seconds a picture"),
        is_bars=True,
    ),
    Plot(
        "Share of the time, by phase",
        "What the device was doing.",
        _has_any("percent."),
        _shares("percent.", lambda _: 1, "percent of the time"),
        is_bars=True,
    ),
    Plot(
        "Ratios",
        "The dashed line is 1: as much on either side. Whiskers show the spread where it is known.",
        _has_numbers("ratio"),
        _draw_ratios,
        is_bars=True,
    ),
    Plot(
        "Memory, measured over predicted",
        "Beside the weights. Over the dashed line, more was taken than predicted.",
        _has_numbers("predicted_bytes", "measured_bytes"),
        _draw_memory,
    ),
    Plot(
        "Cost of a job over jobs",
        "Flat lines: a job costs the same, however many there were before.",
        lambda row: is_number(row.get("jobs")) and any(is_number(row.get(name)) for name in _COSTS),
        _draw_costs,
        enough=lambda rows, names: bool(_lines(rows, names, "jobs")),
    ),
)
