"""The charts of the report, as PNG: matplotlib without pyplot, so no global state and no window.

What a chart cannot show readably is put together: partitions into groups, rare labels into
"other". The same data gives the same bytes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING

from ondine_dagster.assets.reporting.report_data import WITHOUT_FILES, FieldFigures, ReportData
from ondine_dagster.assets.shared.status import PartitionStatus
from ondine_dagster.llm.prices import usd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BYTES = 60_000  # of a chart: Dagster's event log keeps them
_WIDTH, _DPI = 9.0, (110, 80, 55)  # inches; the next resolution where a chart is too large
_GROUPS, _TICKS, _BARS, _FIELDS, _COLUMNS, _BINS = 60, 6, 10, 6, 3, 40
_FEW = 4  # bars have the width of so many at least
_NAME, _KEY = 24, 14  # characters of a label, of a partition key
# told apart in print without colours too: dark, middle with strokes, pale with dots, white
_RESULTS, _REJECTED, _WAITING, _NOT_RUN = "#1f5a8f", "#e8964a", "#c8ccd0", "#ffffff"
_SKIPPED = "#a9c4de"
_EDGE = "#6b7278"
_OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei",
    "Hiragino Sans", "Arial Unicode MS",
)  # fmt: skip
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
}
_Draw = Callable[["Figure"], None]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture; `title` says in words what it shows."""

    name: str
    title: str
    png: bytes


def draw_charts(data: ReportData) -> list[Chart]:
    """Return the charts for which there is anything to show."""
    drawn = (_partitions(data), _labels(data), _requests(data), _spend(data))
    return [chart for chart in drawn if chart is not None]


def _chart(name: str, title: str, height: float, draw: _Draw) -> Chart:
    """Draw with our settings, whatever those of the person are; `height` in inches."""
    # it says that it looks for fonts, once on each machine: nothing for who runs a dataset
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE, _fonts()]), warnings.catch_warnings():
        # a letter that no font has is a box; the page has it beside the chart
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        for dpi in _DPI:
            buffer = BytesIO()
            figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
            if buffer.tell() <= MOST_BYTES:
                break
    return Chart(name, title, buffer.getvalue())


def _fonts() -> dict[str, list[str]]:
    """Return matplotlib's own font, the same on every machine, and for other scripts what is there.

    Only where it is there: matplotlib complains of fonts that are not.
    """
    from matplotlib.font_manager import get_font_names

    present = set(get_font_names())
    return {"font.family": ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in present)]}


# over partitions


def _partitions(data: ReportData) -> Chart | None:
    partitions = data.status.partitions
    if not data.status.rows:
        return None
    size = -(-len(partitions) // _GROUPS)
    groups = [partitions[first : first + size] for first in range(0, len(partitions), size)]

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True)
        places = range(len(groups))
        kinds = _row_kinds(groups)
        below = [0] * len(groups)
        for label, colour, hatch, counts in kinds:
            if any(counts):
                top.bar(
                    places, counts, bottom=below, width=0.9, label=label, color=colour,
                    hatch=hatch, edgecolor=_EDGE, linewidth=0.4,
                )  # fmt: skip
            below = [one + more for one, more in zip(below, counts, strict=True)]
        together = "partition" if size == 1 else f"group of {size} partitions"
        top.set_title(f"Rows by outcome, per {together}")
        _thousands(top, "rows")
        top.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        paid = [sum(_dollars(data.used[one.partition].paid) for one in group) for group in groups]
        bottom.bar(places, paid, width=0.9, color=_RESULTS, edgecolor=_EDGE, linewidth=0.4)
        bottom.set_title(f"Paid so far, per {together}")
        _from_zero(bottom, "USD", paid)
        step = max(1, -(-len(groups) // _TICKS))
        shown = list(places)[::step]
        names = [_text(groups[place][0].partition, _KEY) for place in shown]
        bottom.set_xticks(shown, names)
        bottom.set_xlim(-0.6, max(len(groups), 4) - 0.4)

    return _chart("partitions", "Rows and money over the partitions", 4.6, draw)


def _row_kinds(
    groups: Sequence[Sequence[PartitionStatus]],
) -> list[tuple[str, str, str | None, list[int]]]:
    """Return rows per group by outcome: label, colour, hatch, counts."""

    def counts(of: Callable[[PartitionStatus], int]) -> list[int]:
        return [sum(map(of, group)) for group in groups]

    def with_files(one: PartitionStatus) -> bool:
        return one.state not in WITHOUT_FILES

    return [
        ("results", _RESULTS, None, counts(lambda one: one.results)),
        ("skipped", _SKIPPED, None, counts(lambda one: one.skipped)),
        (
            "rejected",
            _REJECTED,
            "////",
            counts(lambda one: one.rejected - one.waiting if with_files(one) else 0),
        ),
        ("waiting", _WAITING, "....", counts(lambda one: one.waiting if with_files(one) else 0)),
        ("not run", _NOT_RUN, None, counts(lambda one: 0 if with_files(one) else one.rows)),
    ]


# labels


def _labels(data: ReportData) -> Chart | None:
    fields = [one for one in data.fields if one.values and one.rows][:_FIELDS]
    if not fields:
        return None
    lines = -(-len(fields) // _COLUMNS)
    columns = min(len(fields), _COLUMNS)

    def draw(figure: Figure) -> None:
        grid = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axes, one in zip(grid, fields, strict=False):
            bars = [(_text(name, _NAME), count) for name, count in label_bars(one)]
            _horizontal(axes, bars, "rows")
            axes.set_title(_text(one.name, _NAME))
        for axes in grid[len(fields) :]:
            axes.remove()

    return _chart("labels", "What the results say", 0.6 + 2.3 * lines, draw)


def label_bars(field: FieldFigures) -> list[tuple[str, int]]:
    """Return the labels of a field to draw, with their rows: the rare ones are one bar."""
    values = dict(field.values or ())
    if field.type == "integer" and len(values) <= 2 * _BARS:
        bars = sorted(values.items(), key=lambda item: int(item[0]))
    else:
        bars = sorted(values.items(), key=lambda item: (-item[1], item[0]))
        if len(bars) > _BARS + 1:
            rest = bars[_BARS:]
            bars = [
                *bars[:_BARS],
                (f"({len(rest):,} others)", sum(count for _, count in rest)),
            ]
    empty = field.rows - field.filled
    return [*bars, *([("(no value)", empty)] if empty else [])]


# requests


def _requests(data: ReportData) -> Chart | None:
    if not data.latencies:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _latency(left, data)
        used = [one for one in data.used.values() if one.requests]
        right.scatter(
            [one.tokens for one in used], [_dollars(one.paid) for one in used],
            s=14, color=_RESULTS, alpha=0.6, linewidths=0,
        )  # fmt: skip
        right.set_title("Tokens against money, a dot per partition")
        _thousands(right, "USD", only="x")
        right.set_xlabel("tokens, of prompt and completion")
        _from_zero(right, "USD", [_dollars(one.paid) for one in used])
        right.set_xlim(left=0)

    return _chart("requests", "How long requests took, and what tokens cost", 3.0, draw)


def _latency(axes: Axes, data: ReportData) -> None:
    half, most, end = (quantile(data.latencies, share) for share in (0.5, 0.95, 0.99))
    width = max(1.0, (end + 1) / _BINS)
    counts = [0] * (_BINS + 1)
    for took, count in data.latencies.items():
        counts[min(_BINS, int(took / width))] += count
    places = [(place + 0.5) * width for place in range(_BINS)]
    axes.bar(places, counts[:_BINS], width=width, color=_RESULTS, edgecolor="white", linewidth=0.3)
    for at, style in ((half, "-"), (most, "--")):
        axes.axvline(at, color="#20262b", linestyle=style, linewidth=1)
    axes.set_title(f"Latency: half within {half:,} ms, 95 % within {most:,} ms")
    axes.set_xlim(left=0)
    _thousands(axes, "", only="x")
    _thousands(axes, "requests")
    axes.set_xlabel(f"ms; {counts[_BINS]:,} slower ones are not drawn" if counts[_BINS] else "ms")


def quantile(latencies: Mapping[int, int], share: float) -> int:
    """Return the latency that `share` of the requests do not exceed."""
    took = sorted(latencies)
    wanted = share * sum(latencies.values())
    passed = accumulate(latencies[one] for one in took)
    return next(one for one, count in zip(took, passed, strict=True) if count >= wanted)


# money and rejections


def _spend(data: ReportData) -> Chart | None:
    keys = [
        (f"{_text(one.model, _NAME)}\n{_key(one.key)}", _dollars(one.usage.paid))
        for one in data.keys[:_BARS]
    ]
    codes = [(_text(one.code or one.error_class, _NAME), one.rows) for one in data.codes[:_BARS]]
    if not keys and not codes:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _horizontal(left, keys, "USD")
        left.set_title("Paid by model and API key")
        _horizontal(right, codes, "rows", _REJECTED)
        right.set_title("Why rows were rejected")

    height = 1.1 + 0.34 * max(len(keys), len(codes), 2)
    return _chart("spend", "Money by model and key, and reasons of rejected rows", height, draw)


def _dollars(picodollars: int) -> float:
    return float(usd(picodollars))


def _key(fingerprint: str | None) -> str:
    return f"key {fingerprint[:8]}" if fingerprint else "no key"


# axes


def _horizontal(
    axes: Axes, bars: Sequence[tuple[str, float]], unit: str, colour: str = _RESULTS
) -> None:
    """Draw bars from top to bottom, each with its number."""
    if not bars:
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes, color=_EDGE)
        axes.set_axis_off()
        return
    numbers = [number for _, number in bars]
    drawn = axes.barh(range(len(bars)), numbers, color=colour, edgecolor=_EDGE, linewidth=0.4)
    axes.bar_label(drawn, [_number(one, unit) for one in numbers], padding=3, fontsize=8)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    axes.set_ylim(max(len(bars), _FEW) - 0.5, -0.5)
    axes.set_xlim(0, (max(numbers) or 1) * 1.3)
    axes.set_xticks([])
    axes.set_xlabel(unit)
    axes.spines["bottom"].set_visible(False)


def _number(number: float, unit: str) -> str:
    return f"{number:,.4g}" if unit == "USD" else f"{number:,}"


def _thousands(axes: Axes, unit: str, only: str = "y") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis = axes.yaxis if only == "y" else axes.xaxis
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    if only == "y":
        axes.set_ylabel(unit)
        axes.grid(axis="y", color="#e3e6e8", linewidth=0.6)


def _from_zero(axes: Axes, unit: str, numbers: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.6g}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_ylabel(unit)
    axes.set_ylim(0, (max(numbers, default=0) or 1) * 1.08)
    axes.grid(axis="y", color="#e3e6e8", linewidth=0.6)


def _text(text: str, longest: int) -> str:
    """Return what people wrote as it can be drawn: short, on one line, and no formula."""
    line = " ".join(text[: 4 * longest].split()) or "(empty)"
    line = f"{line[: longest - 1]}…" if len(line) > longest else line
    return line.replace("$", r"\$")
