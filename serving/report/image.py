"""The plots of a report as one PNG: what the page has as SVG, drawn by Pillow.

It knows just the shapes that our own plots are made of.
"""

import io
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from PIL import Image, ImageDraw, ImageFont

from serving.report.curves import curve_plots
from serving.report.figures import Report
from serving.report.page import reliability_plot

SCALE = 2  # pixels a unit
FINE = 2  # drawn so many times larger, so that edges are smooth
GAP, COLUMNS, TEXT = 12, 3, 12
ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}  # of a text that is placed by its baseline


def png(report: Report) -> bytes:
    """The whole file: reliability above, and PPO's curves below, each where the report has it."""
    rows = [] if report.fit is None else [[plot(reliability_plot(report.fit.bins))]]
    curves = [] if report.curves is None else [plot(each) for each in curve_plots(report.curves)]
    rows += [curves[i : i + COLUMNS] for i in range(0, len(curves), COLUMNS)]
    heading = _written(report.title)
    whole = _stacked([heading, *(_beside(row) for row in rows)])
    file = io.BytesIO()
    whole.save(file, "png")
    return file.getvalue()


def plot(svg: str) -> Image.Image:
    """One of our plots. Its background is white."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = (float(each) for each in root.attrib["viewBox"].split())
    large = Image.new("RGB", (round(width * SCALE * FINE), round(height * SCALE * FINE)), "white")
    draw = ImageDraw.Draw(large, "RGBA")  # which lets dots shine through each other
    for shape in root:
        _draw(draw, shape)
    return large.resize((round(width * SCALE), round(height * SCALE)), Image.Resampling.LANCZOS)


def _draw(draw: ImageDraw.ImageDraw, shape: ElementTree.Element) -> None:
    """Raises ValueError on a shape that is none of ours: a plot that lacks one would be a false report."""
    told, pen = shape.attrib, SCALE * FINE
    match shape.tag:
        case "rect":
            x, y, width, height = _numbers(told, "x", "y", "width", "height")
            draw.rectangle((x, y, x + width, y + height), outline=told["stroke"], width=pen)
        case "line":
            ends = _numbers(told, "x1", "y1", "x2", "y2")
            for dash in _dashes(ends, 4.0 * pen):
                draw.line(dash, fill=told["stroke"], width=pen)
        case "polyline":
            points = [float(each) * pen for each in told["points"].replace(",", " ").split()]
            draw.line(points, fill=told["stroke"], width=pen, joint="curve")
        case "circle":
            x, y, r = _numbers(told, "cx", "cy", "r")
            draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(told["fill"], float(told.get("fill-opacity", 1))))
        case "text":
            x, y = _numbers(told, "x", "y")
            font = ImageFont.load_default(TEXT * pen)
            draw.text((x, y), shape.text or "", "#222", font, ANCHORS[told.get("text-anchor", "start")])
        case _:
            raise ValueError(f"a plot has a {shape.tag}, which cannot be drawn")


def _numbers(told: dict[str, str], *names: str) -> list[float]:
    return [float(told[name]) * SCALE * FINE for name in names]


def _dashes(ends: Sequence[float], length: float) -> Iterator[tuple[float, float, float, float]]:
    """Every second piece of that length on the way from (x1, y1) to (x2, y2)."""
    x1, y1, x2, y2 = ends
    pieces = max(1, round(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 / length))
    dx, dy = (x2 - x1) / pieces, (y2 - y1) / pieces
    for i in range(0, pieces, 2):
        yield x1 + i * dx, y1 + i * dy, x1 + (i + 1) * dx, y1 + (i + 1) * dy


def _colour(short: str, opacity: float) -> tuple[int, int, int, int]:
    """#26c is #2266cc."""
    red, green, blue = (17 * int(digit, 16) for digit in short.removeprefix("#"))
    return red, green, blue, round(255 * opacity)


def _written(text: str) -> Image.Image:
    font = ImageFont.load_default(TEXT * SCALE)
    left, top, right, bottom = font.getbbox(text)
    line = Image.new("RGB", (round(right - left), round(bottom - top) + GAP), "white")
    ImageDraw.Draw(line).text((-left, -top), text, "#222", font)
    return line


def _beside(images: Sequence[Image.Image]) -> Image.Image:
    whole = Image.new("RGB", (sum(each.width for each in images), max(each.height for each in images)), "white")
    left = 0
    for each in images:
        whole.paste(each, (left, 0))
        left += each.width
    return whole


def _stacked(images: Sequence[Image.Image]) -> Image.Image:
    width, height = max(each.width for each in images), sum(each.height + GAP for each in images)
    whole = Image.new("RGB", (width + 2 * GAP, height + GAP), "white")
    top = GAP
    for each in images:
        whole.paste(each, (GAP, top))
        top += each.height + GAP
    return whole
