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
