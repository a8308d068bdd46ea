"""Charts as SVG text for a page that needs nothing else: no script, no image file, colours left to the page's CSS.

A drawing is 480 units wide so that its labels stay readable on a phone. Every mark carries a `role` class
(before, after, train, validation, neutral, limit); report.css gives roles their light and dark colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from vla.evaluation.report import percent

WIDTH = 480.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 14.0, 40.0
LABEL_WIDTH = 96.0  # column of names left of a row chart
ROW_HEIGHT = 34.0


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a line chart; points whose y is not finite are left out.

    Attributes:
        is_faint: drawn as background, e.g. the raw values behind their moving average.
        has_points: draws a dot on every value.
        low: lower ends of whiskers through the values, or empty.
        high: their upper ends.
        shift: drawing units to the right, so that whiskers of several series stay apart.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    role: str = "neutral"
    is_faint: bool = False
    has_points: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One row of an interval chart: a value and its 95 % interval, all as shares in [0, 1]."""

    label: str
    value: float
    low: float
    high: float
    role: str = "neutral"


@dataclass(frozen=True, kw_only=True)
class BarGroup:
    """One row of a bar chart: a name, a value per role, and how to write a value."""

    label: str
    values: dict[str, float]
    format: str = "{:.3g}"


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Maps values to drawing units and knows its ticks."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        share = (self._bend(value) - self._bend(self.low)) / (
            self._bend(self.high) - self._bend(self.low)
        )
        return self.start + share * (self.end - self.start)

    def _bend(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.is_log else value

    def ticks(self, count: int) -> list[float]:
        if self.is_log:
            exponents = range(
                math.ceil(math.log10(self.low)), math.floor(math.log10(self.high) + 1e-9) + 1
            )
            return [10.0**exponent for exponent in exponents]
        return nice_ticks(self.low, self.high, count)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Returns at most `count` + 1 round numbers (steps of 1, 2 or 5 times a power of ten) within [low, high]."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    is_log: bool = False,
    height: float = 250.0,
) -> str:
    """Returns lines over a shared pair of axes; a logarithmic y-axis leaves out values that are not positive."""
    kept = [_finite(line, is_log) for line in series]
    xs = [x for line in kept for x, _ in line]
    ys = [y for line in kept for _, y in line]
    ys += [y for line in series for y in (*line.low, *line.high) if math.isfinite(y)]
    if not ys:
        return _empty("nothing was recorded")
    x_axis = _Axis(low=min(xs), high=_above(min(xs), max(xs)), start=LEFT, end=WIDTH - RIGHT)
    low, high = (min(ys) * 0.9, max(ys) * 1.1) if is_log else (min(0.0, *ys), max(ys) * 1.05)
    y_axis = _Axis(low=low, high=_above(low, high), start=height - BOTTOM, end=TOP, is_log=is_log)
    parts = [*_grid(x_axis, y_axis, height), *_axis_names(x_label, y_label, height)]
    for line, points in zip(series, kept, strict=True):
        parts.append(_polyline(line, [(x_axis(x) + line.shift, y_axis(y)) for x, y in points]))
        parts += [
            _whisker(line.role, x_axis(x) + line.shift, y_axis(low), y_axis(high))
            for x, low, high in zip(line.x, line.low, line.high, strict=False)
            if math.isfinite(low) and math.isfinite(high)
        ]
        if line.has_points:
            parts += [
                _dot(
                    line.role,
                    x_axis(x) + line.shift,
                    y_axis(y),
                    f"{line.label}: {y:.4g} at {x:.6g}",
                )
                for x, y in points
            ]
    return _svg(parts, height, f"{y_label} over {x_label}")


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    x_label: str,
    y_label: str,
    limit: float | None = None,
    height: float = 230.0,
) -> str:
    """Returns one column per bin, all of one width however far apart their edges are, with the count on top.

    Counts are on a logarithmic scale, so that one late tick among thousands is seen.

    Args:
        edges: (bins + 1,) increasing.
        counts: (bins,).
        limit: bins that start at or past it get the role "limit".
    """
    if not any(counts):
        return _empty("nothing was recorded")
    base = height - BOTTOM
    column = (WIDTH - RIGHT - LEFT) / len(counts)
    # Half a count at the bottom leaves a bar of one visible.
    y_axis = _Axis(low=0.5, high=max(counts) * 2.5, start=base, end=TOP, is_log=True)
    parts = [*_value_grid(y_axis, base), *_axis_names(x_label, y_label, height)]
    for index, (low, high, count) in enumerate(zip(edges[:-1], edges[1:], counts, strict=True)):
        x = LEFT + column * index
        if count:
            role = "limit" if limit is not None and low >= limit else "after"
            note = f"{count} between {low:.3g} and {high:.3g}"
            top = y_axis(count)
            parts.append(_rect(role, x + 1.5, top, column - 3, base - top, note))
            parts.append(_text(x + column / 2, top - 4, str(count), anchor="middle", kind="small"))
    for index, edge in enumerate(edges):
        parts.append(_text(LEFT + column * index, base + 16, f"{edge:.2g}", anchor="middle"))
    return _svg(parts, height, f"histogram of {x_label}")


def interval_chart(rows: Sequence[Interval]) -> str:
    """Returns one row per rate: a bar up to the value and a whisker over its 95 % interval, from 0 to 100 %."""
    axis = _Axis(low=0.0, high=1.0, start=LABEL_WIDTH, end=WIDTH - 76)
    height = TOP + ROW_HEIGHT * len(rows) + 26
    parts = _row_grid(axis, [0, 0.25, 0.5, 0.75, 1], height, lambda value: f"{100 * value:.0f}%")
    for index, row in enumerate(rows):
        middle = TOP + ROW_HEIGHT * (index + 0.5)
        note = f"{row.label}: {percent(row.value)}, 95 % interval {percent(row.low)} to {percent(row.high)}"
        parts.append(_text(LABEL_WIDTH - 8, middle + 4, row.label, anchor="end", kind="name"))
        parts.append(
            _rect(row.role, axis(0), middle - 9, max(axis(row.value) - axis(0), 1.5), 18, note)
        )
        low, high = axis(row.low), axis(row.high)
        whisker = f"M{low:.1f} {middle - 6:.1f}v12M{low:.1f} {middle:.1f}H{high:.1f}M{high:.1f} {middle - 6:.1f}v12"
        parts.append(f'<path class="whisker" d="{whisker}"/>')
        parts.append(_text(WIDTH - 64, middle + 4, percent(row.value), kind="value"))
    return _svg(parts, height, "success rates with 95 % intervals")


def bar_chart(groups: Sequence[BarGroup], *, is_normalized: bool = True) -> str:
    """Returns a row per group with one bar per role.

    Args:
        is_normalized: scales every row by its own largest value: rows of different units stay comparable inside a row.
    """
    if not groups:
        return _empty("nothing was recorded")
    bar = 11.0
    row = bar * max(len(group.values) for group in groups) + 14
    start, end = LABEL_WIDTH, WIDTH - 84
    overall = max((value for group in groups for value in group.values.values()), default=0.0)
    parts: list[str] = []
    for index, group in enumerate(groups):
        top = TOP + row * index
        parts.append(_text(start - 8, top + row / 2 - 2, group.label, anchor="end", kind="name"))
        scale = max(group.values.values()) if is_normalized else overall
        for place, (role, value) in enumerate(group.values.items()):
            y, length = top + place * bar, (end - start) * (value / scale if scale > 0 else 0)
            shown = group.format.format(value)
            parts.append(
                _rect(role, start, y, max(length, 1.5), bar - 2, f"{group.label}, {role}: {shown}")
            )
            parts.append(_text(start + max(length, 1.5) + 5, y + bar - 2.5, shown, kind="small"))
    return _svg(parts, TOP + row * len(groups), "bars")


def timeline(phases: Sequence[tuple[str, float]]) -> str:
    """Returns one bar per phase along a common time axis; each phase is a name and its seconds."""
    total = sum(seconds for _, seconds in phases)
    if total <= 0:
        return _empty("nothing was timed")
    axis = _Axis(low=0.0, high=total, start=LABEL_WIDTH, end=WIDTH - 62)
    height = TOP + 26 * len(phases) + 26
    parts = _row_grid(
        axis, [60 * minute for minute in nice_ticks(0, total / 60, 4)], height, duration
    )
    begun = 0.0
    for index, (name, seconds) in enumerate(phases):
        y = TOP + 26 * index
        x, width = axis(begun), max(axis(seconds) - axis(0), 1.5)
        parts.append(_text(LABEL_WIDTH - 8, y + 16, name, anchor="end", kind="name"))
        parts.append(_rect("after", x, y + 4, width, 16, f"{name}: {duration(seconds)}"))
        parts.append(_text(x + width + 5, y + 16, duration(seconds), kind="small"))
        begun += seconds
    return _svg(parts, height, "time spent in each phase")


def legend(roles: Sequence[tuple[str, str]]) -> str:
    """Returns a line of coloured names; each entry is a role and its label."""
    items = "".join(
        f'<span><i class="{escape(role)}"></i>{escape(label)}</span>' for role, label in roles
    )
    return f'<p class="legend">{items}</p>'


def duration(seconds: float) -> str:
    """Returns seconds as "42 s", "3 min 05 s" or "2 h 10 min"; below ten seconds with one decimal."""
    if seconds < 60:
        return (
            f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"
        )
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _finite(line: Series, is_log: bool) -> list[tuple[float, float]]:
    points = zip(line.x, line.y, strict=True)
    return [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not is_log)]


def _above(low: float, high: float) -> float:
    return high if high > low else low + max(abs(low), 1.0)


def _grid(x_axis: _Axis, y_axis: _Axis, height: float) -> list[str]:
    base = height - BOTTOM
    parts = _value_grid(y_axis, base)
    for value in x_axis.ticks(5):
        parts.append(_text(x_axis(value), base + 16, _short(value), anchor="middle"))
    return parts


def _value_grid(y_axis: _Axis, base: float) -> list[str]:
    parts = []
    for value in y_axis.ticks(4):
        y = y_axis(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        )
        parts.append(_text(LEFT - 6, y + 4, _short(value), anchor="end"))
    return [
        *parts,
        f'<line class="base" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>',
    ]


def _row_grid(
    axis: _Axis, ticks: Sequence[float], height: float, shown: Callable[[float], str]
) -> list[str]:
    parts = []
    for value in ticks:
        x = axis(value)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - 22}"/>'
        )
        parts.append(_text(x, height - 6, shown(value), anchor="middle"))
    return parts


def _axis_names(x_label: str, y_label: str, height: float) -> list[str]:
    middle = (TOP + height - BOTTOM) / 2
    turned = f'<text class="axis" transform="translate(11 {middle:.1f}) rotate(-90)" text-anchor="middle">'
    return [
        _text((LEFT + WIDTH - RIGHT) / 2, height - 6, x_label, anchor="middle", kind="axis"),
        f"{turned}{escape(y_label)}</text>",
    ]


def _polyline(line: Series, points: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    faint = " faint" if line.is_faint else ""
    return f'<polyline class="line {escape(line.role)}{faint}" points="{path}"/>'


def _whisker(role: str, x: float, low: float, high: float) -> str:
    return f'<path class="line {escape(role)}" stroke-opacity="0.5" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'


def _dot(role: str, x: float, y: float, note: str) -> str:
    return f'<circle class="fill {escape(role)}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(note)}</title></circle>'


def _rect(role: str, x: float, y: float, width: float, height: float, note: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"'
    return f'<rect class="fill {escape(role)}" {place}><title>{escape(note)}</title></rect>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    head = f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return head + "".join(parts) + "</svg>"


def _empty(reason: str) -> str:
    return f'<p class="empty">{escape(reason)}</p>'


def _short(value: float) -> str:
    if value and abs(value) >= 1000:
        return f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M"
    return f"{value:g}"
