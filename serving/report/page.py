"""The report of a reward model, and of PPO by it, as one HTML file that loads nothing, from anywhere."""

from collections.abc import Iterable, Sequence
from html import escape

from feedback.policies.reward_fit import Bin, Fit
from serving.report.curves import CURVE_HEADINGS, curve_plots, curve_rows
from serving.report.figures import BIN_HEADINGS, HEADINGS, LENGTH_HEADINGS, RATER_HEADINGS, Report, bin_rows, slice_rows

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd }
svg { width: 24rem; max-width: 100%; font-size: 12px }
.curves { display: flex; flex-wrap: wrap; gap: 1rem }
.curves svg { width: 18rem }
"""
SIDE, MARGIN = 300, 44


def page(report: Report) -> str:
    """The whole file. Everything that comes from the manifest is escaped."""
    sections = [] if report.fit is None else [_table(HEADINGS, report.rows), *_fit_sections(report.fit)]
    if report.curves is not None:
        plots = '<div class="curves">\n' + "\n".join(curve_plots(report.curves)) + "\n</div>"
        sections += ["<h2>PPO</h2>", plots, _table(CURVE_HEADINGS, curve_rows(report.curves))]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(report.name)}</title>\n<style>{STYLE}</style>\n<h1>{escape(_capital(report.title))}</h1>\n"
        + "\n".join(sections)
        + "\n</html>\n"
    )


def _fit_sections(fit: Fit) -> list[str]:
    return [
        f"<p>Intervals: {fit.confidence:.0%}, from a bootstrap that draws whole prompts.</p>",
        "<h2>Reliability</h2>",
        "<p>Of pairs of like confidence: how sure the scores are, and how often they are right. On the line is "
        "calibrated, below it too sure.</p>",
        reliability_plot(fit.bins),
        _table(BIN_HEADINGS, bin_rows(fit.bins)),
        "<h2>By length</h2>",
        _table(LENGTH_HEADINGS, slice_rows(fit.lengths)),
        "<h2>By rater</h2>",
        _table(RATER_HEADINGS, slice_rows(fit.raters)),
    ]


def reliability_plot(bins: Sequence[Bin]) -> str:
    """Predicted (0.5 to 1) against observed (0 to 1), a dot for each bin, its area by its pairs."""
    most = max((one.pairs for one in bins), default=1)
    dots = [
        f'<circle cx="{_x(b.predicted):.1f}" cy="{_y(b.observed):.1f}" r="{3 + 5 * (b.pairs / most) ** 0.5:.1f}" '
        f'fill="#26c" fill-opacity=".7"><title>{b.predicted:.3f} predicted, {b.observed:.3f} observed, '
        f"{b.pairs} pairs</title></circle>"
        for b in bins
    ]
    across = [
        f'<text x="{_x(v):.1f}" y="{_y(0) + 16:.1f}" text-anchor="middle">{v:.1f}</text>'
        for v in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    ]
    up = [
        f'<text x="{_x(0.5) - 6:.1f}" y="{_y(v) + 4:.1f}" text-anchor="end">{v:.2f}</text>'
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    line = f'x1="{_x(0.5):.1f}" y1="{_y(0.5):.1f}" x2="{_x(1):.1f}" y2="{_y(1):.1f}"'
    whole = SIDE + 2 * MARGIN
    return (
        f'<svg viewBox="0 0 {whole} {whole}" role="img" aria-label="reliability: predicted against observed">\n'
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>\n'
        f'<line {line} stroke="#999" stroke-dasharray="4 4"/>\n'
        + "\n".join([*across, *up, *dots])
        + f'\n<text x="{whole / 2:.0f}" y="{whole - 6}" text-anchor="middle">predicted</text>\n'
        f'<text x="{MARGIN}" y="{MARGIN - 10}">observed</text>\n</svg>'
    )


def _x(predicted: float) -> float:
    return MARGIN + (predicted - 0.5) * 2 * SIDE


def _y(observed: float) -> float:
    return MARGIN + (1 - observed) * SIDE


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [_line("th", headings), *(_line("td", row) for row in rows)]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _line(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
