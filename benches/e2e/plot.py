"""Pictures without a library: bars of ratios, and curves, as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#b7410e", "#1f6f8b", "#5b8c5a", "#8a5a9e", "#b59f3b", "#555555")
BAR = 12.0
LABELS = 470.0
WIDTH = 1000.0
TOP = 60.0
PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 500.0, 300.0, 46.0
LEAST, MOST = 0.01, 10.0
"""Ends of the logarithmic scale."""


@dataclass(frozen=True)
class Bar:
    """A group of bars: one line of the table."""

    title: str
    ratios: Mapping[str, float | None]
    reach: float | None


def bars(title: str, names: Sequence[str], groups: Sequence[Bar]) -> str:
    """Ratios on a logarithmic scale; a mark stands where each is to be."""
    step = BAR * len(names) + 10
    height = TOP + step * len(groups) + 30
    parts = [head(title, WIDTH, height)]
    for mark in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10):
        x = across(mark)
        stroke = "#333" if mark == 1 else "#ddd"
        parts.append(f'<path d="M{x:.1f} {TOP - 8:.1f}V{height - 30:.1f}" stroke="{stroke}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 14:.1f}" text-anchor="middle">{mark:g}</text>')
    parts.append(legend(names, LABELS))
    for at, group in enumerate(groups):
        y = TOP + step * at
        middle = y + BAR * len(names) / 2 + 4
        parts.append(f'<text x="{LABELS - 8:.1f}" y="{middle:.1f}" text-anchor="end">{escape(group.title)}</text>')
        for index, name in enumerate(names):
            if ratio := group.ratios.get(name):
                width = across(ratio) - LABELS
                colour = COLOURS[index % len(COLOURS)]
                top = y + BAR * index
                parts.append(
                    f'<rect x="{LABELS:.1f}" y="{top:.1f}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>'
                )
                parts.append(f'<text x="{LABELS + width + 4:.1f}" y="{top + BAR - 2:.1f}">{ratio:.3g}</text>')
        if group.reach:
            x = across(group.reach)
            parts.append(f'<path d="M{x:.1f} {y - 3:.1f}v{BAR * len(names) + 4:.1f}" stroke="black" stroke-width="2"/>')
    return "".join([*parts, "</svg>\n"])


@dataclass(frozen=True)
class Panel:
    """A picture of some curves, both scales logarithmic."""

    title: str
    axis: str
    curves: Mapping[str, Sequence[tuple[float, float]]]


def curves(title: str, panels: Sequence[Panel]) -> str:
    """Panels, two in a row."""
    rows = (len(panels) + 1) // 2
    parts = [head(title, 2 * PANEL_WIDTH, TOP + rows * PANEL_HEIGHT)]
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    parts.append(legend(names, 12.0))
    for at, panel in enumerate(panels):
        left, top = PANEL_WIDTH * (at % 2), TOP + PANEL_HEIGHT * (at // 2)
        parts.append(f'<g transform="translate({left:.0f} {top:.0f})">{inside(panel, names)}</g>')
    return "".join([*parts, "</svg>\n"])


def inside(panel: Panel, names: Sequence[str]) -> str:
    """One panel, at the origin."""
    everything = [point for curve in panel.curves.values() for point in curve]
    if not everything:
        return ""
    xs, ys = Scale.of([x for x, _ in everything]), Scale.of([y for _, y in everything])
    wide, high = PANEL_WIDTH - 2 * MARGIN, PANEL_HEIGHT - 2 * MARGIN

    def place(x: float, y: float) -> tuple[float, float]:
        return MARGIN + xs.share(x) * wide, MARGIN + (1 - ys.share(y)) * high

    parts = [f'<text x="{MARGIN}" y="{MARGIN - 12}" font-size="12">{escape(panel.title)}</text>']
    middle, bottom = MARGIN + wide / 2, PANEL_HEIGHT - 8
    parts.append(f'<text x="{middle:.1f}" y="{bottom:.1f}" text-anchor="middle">{escape(panel.axis)}</text>')
    for x in sorted({x for x, _ in everything}):
        left, low = place(x, ys.least)
        parts.append(f'<path d="M{left:.1f} {low:.1f}V{MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="{left:.1f}" y="{low + 14:.1f}" text-anchor="middle">{x:,g}</text>')
    for y in ys.marks():
        left, low = place(xs.least, y)
        parts.append(f'<path d="M{left:.1f} {low:.1f}h{wide:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 4:.1f}" y="{low + 4:.1f}" text-anchor="end">{y:g}</text>')
    for name, curve in panel.curves.items():
        colour = COLOURS[names.index(name) % len(COLOURS)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (place(*point) for point in curve))
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>' if path else "")
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (place(*p) for p in curve)]
    return "".join(parts)


@dataclass(frozen=True)
class Scale:
    """A logarithmic one."""

    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Scale":
        """Wide enough for these, and for more than one value."""
        least, most = max(min(values), 1e-9), max(values)
        return cls(least / 1.1, max(most * 1.1, least * 2))

    def share(self, value: float) -> float:
        """Where a value is: 0 at the least, 1 at the most."""
        return math.log(max(value, self.least) / self.least) / math.log(self.most / self.least)

    def marks(self) -> list[float]:
        """1, 2 and 5 times each power of ten, as far as they lie within."""
        powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        found = (digit * 10.0**power for power in powers for digit in (1, 2, 5))
        return [mark for mark in found if self.least <= mark <= self.most]


def across(ratio: float) -> float:
    """Where a ratio stands."""
    share = math.log(min(max(ratio, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LABELS + share * (WIDTH - LABELS - 40)


def head(title: str, width: float, height: float) -> str:
    """What an SVG begins with."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="12" y="20" font-size="14">{escape(title)}</text>'
    )


def legend(names: Sequence[str], left: float) -> str:
    """Which colour is whose."""
    parts = []
    for index, name in enumerate(names):
        x = left + 110 * index
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<rect x="{x:.1f}" y="30" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14:.1f}" y="39">{escape(name)}</text>')
    return "".join(parts)
