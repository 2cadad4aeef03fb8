"""Growth curves as an SVG: both axes logarithmic, one line a series, its last figure beside its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 40, 44
COLOURS = ("#1f5fa8", "#b3541e", "#2d7d46", "#7a3e9d", "#5a5a5a", "#a8862a")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Series = Mapping[str, Mapping[int, float]]  # name -> size -> value


def charts(panels: Sequence[tuple[str, str, str, Series]]) -> str:
    """One SVG with a panel for each (title, x axis, y axis, series), two in a row. Values of 0 or less are left out."""
    rows = (len(panels) + 1) // 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {rows * HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{2 * WIDTH}" height="{rows * HEIGHT}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number % 2 * WIDTH} {number // 2 * HEIGHT})">')
        parts += _panel(*panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, x_axis: str, y_axis: str, series: Series) -> list[str]:
    points = [(x, y) for line in series.values() for x, y in line.items() if y > 0]
    x_low, x_high = _decades([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points])

    def across(x: float) -> float:
        return LEFT + (math.log10(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(y) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="22" font-size="14" fill="#222222">{escape(title)}</text>']
    for decade in range(x_low, x_high + 1):
        x = across(10**decade)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_power(decade)}</text>')
    for decade in range(y_low, y_high + 1):
        y = down(10**decade)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_power(decade)}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle" fill="#555555">{escape(x_axis)}</text>'
    )
    parts.append(f'<text x="{LEFT}" y="{TOP - 4}" fill="#555555">{escape(y_axis)}</text>')
    taken: list[float] = []
    drawn = [(name, sorted((x, y) for x, y in line.items() if y > 0)) for name, line in series.items()]
    # From the top down, so that labels stand in the order of their lines.
    coloured = sorted(
        ((name, shown, COLOURS[n % len(COLOURS)]) for n, (name, shown) in enumerate(drawn) if shown),
        key=lambda one: -one[1][-1][1],
    )
    for name, shown, colour in coloured:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in shown)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3" fill="{colour}"/>' for x, y in shown]
        at = _free(down(shown[-1][1]), taken)
        label = f"{escape(name)} {_short(shown[-1][1])}"
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{at + 4:.1f}" fill="{colour}">{label}</text>')
    return parts


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(values))) if values else 0
    high = math.ceil(math.log10(max(values))) if values else 1
    return low, max(high, low + 1)


def _free(wanted: float, taken: list[float]) -> float:
    """A height for a label that covers no other."""
    while any(abs(wanted - other) < 13 for other in taken):
        wanted += 13
    taken.append(wanted)
    return wanted


def _power(decade: int) -> str:
    usual = {-3: "0.001", -2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1,000"}
    return usual.get(decade, "10" + str(decade).translate(SUPERSCRIPTS))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
