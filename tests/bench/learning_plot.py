"""Gold and proxy over d = sqrt(KL) as one SVG: a panel for each run; gold is solid, proxy dashed, each to its scale."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, ACROSS = 300, 150, 56, 34, 3
LINES = {"gold": "#b80", "proxy": "#26c"}


def plot(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """`curves` by the title of their panel."""
    width, height = WIDTH + LEFT + 60, HEIGHT + TOP + 30
    rows = -(-len(curves) // ACROSS)
    panels = [
        f'<g transform="translate({width * (i % ACROSS)} {height * (i // ACROSS)})">{_panel(title, curve)}</g>'
        for i, (title, curve) in enumerate(curves.items())
    ]
    size = f"{width * min(ACROSS, len(curves))} {height * rows}"
    style = "<style>text { font: 11px sans-serif }</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}">{style}\n' + "\n".join(panels) + "\n</svg>\n"


def _panel(title: str, curve: Sequence[Mapping[str, Any]]) -> str:
    farthest = max(point["d"] for point in curve) or 1.0
    frame = f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>'
    parts = [frame, _text(LEFT, TOP - 18, title), _text(LEFT + WIDTH, TOP + HEIGHT + 16, f"d = {farthest:.2f}", "end")]
    for side, (name, colour) in enumerate(LINES.items()):
        values = [point[name] for point in curve]
        low, high = min(values), max(values)
        places = [
            f"{LEFT + WIDTH * point['d'] / farthest:.1f},{TOP + HEIGHT * (1 - _share(point[name], low, high)):.1f}"
            for point in sorted(curve, key=lambda each: each["iteration"])
        ]
        dashes = ' stroke-dasharray="5 3"' if name == "proxy" else ""
        parts.append(f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}"{dashes}/>')
        x, anchor = (LEFT - 4, "end") if side == 0 else (LEFT + WIDTH + 4, "start")
        parts += [
            _text(x, TOP + 10, f"{high:.3g}", anchor, colour),
            _text(x, TOP + HEIGHT, f"{low:.3g}", anchor, colour),
        ]
        parts.append(_text(LEFT + 60 * side, TOP - 4, name, "start", colour))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#333") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5
