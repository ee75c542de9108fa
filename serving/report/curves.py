"""How PPO went, as rows of a table and as plots: one SVG for each figure, with its own scale."""

from collections.abc import Mapping, Sequence
from html import escape

from feedback.policies.ppo_curves import Curves, thinned

FIGURES = {
    "score": "score",
    "kl": "KL, nats",
    "entropy": "entropy, nats/token",
    "length": "length",
    "clip_fraction": "clipped",
    "explained_variance": "explained variance",
}  # as the table has them, beside each iteration
FURTHER = {
    "approx_kl": "KL of the updates, nats/token",
    "value_clip_fraction": "values clipped",
    "finished": "ended by itself",
    "repetition": "repeated 4-grams",
    "importance_ratio": "policy / who sampled",
    "effective_share": "effective share of the sample",
}  # plots alone, where a version has them
CURVE_HEADINGS = ("iteration", *FIGURES.values())
ROWS = 12
WIDTH, HEIGHT, LEFT, TOP = 280, 120, 48, 24


def curve_rows(curves: Curves) -> list[tuple[str, ...]]:
    """A row for each of at most `ROWS` iterations, the first and the last among them."""
    figures = [values for _, values in _named(curves, FIGURES)]
    return [
        (str(curves.iterations[i]), *(f"{values[i]:.3f}" for values in figures))
        for i in thinned(len(curves.iterations), ROWS)
    ]


def curve_plots(curves: Curves) -> list[str]:
    """A plot of each figure over the iterations."""
    return [curve_plot(name, curves.iterations, values) for name, values in _named(curves, FIGURES | FURTHER)]


def curve_plot(name: str, iterations: Sequence[int], values: Sequence[float]) -> str:
    """`values` from their least to their greatest; one that never changes is a line at half the height."""
    low, high = min(values), max(values)
    first, last = iterations[0], iterations[-1]
    points = [
        (LEFT + WIDTH * _share(i, first, last), TOP + HEIGHT * (1 - _share(value, low, high)))
        for i, value in zip(iterations, values, strict=True)
    ]
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="#26c"><title>iteration {i}: {value:.4g}</title></circle>'
        for (x, y), i, value in zip(points, iterations, values, strict=True)
    ]
    labels = [
        f'<text x="{LEFT}" y="{TOP - 8}">{escape(name)}</text>',
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{TOP + HEIGHT}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{LEFT}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{first}</text>',
        f'<text x="{LEFT + WIDTH}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{last}</text>',
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<svg viewBox="0 0 {LEFT + WIDTH + 20} {TOP + HEIGHT + 24}" role="img" '
        f'aria-label="{escape(name)} over the iterations of PPO">\n'
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>\n'
        f'<polyline points="{line}" fill="none" stroke="#26c"/>\n' + "\n".join([*labels, *dots]) + "\n</svg>"
    )


def _named(curves: Curves, figures: Mapping[str, str]) -> list[tuple[str, tuple[float, ...]]]:
    found = [(title, getattr(curves, name)) for name, title in figures.items()]
    return [(title, values) for title, values in found if values is not None]


def _share(value: float, low: float, high: float) -> float:
    """How far up from `low` to `high`."""
    return (value - low) / (high - low) if high > low else 0.5
