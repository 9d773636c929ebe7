"""A small SVG writer for the report's plots. Colours come from the page's CSS, which has a light and a dark scheme.

Coordinates are pixels of the viewBox; the origin is at the top left. Text is escaped. Elements have no `xmlns`, since they
are used inline in HTML.
"""

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

Point = tuple[float, float]

FONT = 12.0
"""Font size in pixels, as in plots.css. Smaller text is hard to read on a phone."""
CHARACTER, SIGN = 0.6, 0.72
"""Upper bounds of a character's mean width, in text and in short numbers with signs, in units of the font size."""

MARGIN = 14.0
"""Pixels of background on each side of a plot in an image (`image_url`)."""


@dataclass(frozen=True)
class Scale:
    """Linear map from values low..high to pixels start..end. `ticks`: round values between low and high."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...] = ()

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def nice_scale(values: Sequence[float], start: float, end: float, *, at_least: float = 1e-6) -> Scale:
    """A scale that covers `values` and a range of at least `at_least`, and that has a tick at each end."""
    low, high = min(values), max(values)
    if high - low < at_least:
        low, high = low - at_least / 2, high + at_least / 2
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    # The smallest of 1, 2 or 5 times a power of ten of which at most four cover low..high.
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(i * step for i in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, end, ticks)


def tick_label(value: float) -> str:
    """`value` as short text, without trailing zeros; never `-0`."""
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}") if abs(value) > 1e-12 else "0"


class Drawing:
    """Builds an SVG image. `label`: its text for screen readers."""

    def __init__(self, width: float, height: float, label: str) -> None:
        self._left, self._right, self._height = 0.0, width, height
        self._root = ElementTree.Element("svg", {"role": "img", "aria-label": label})

    def line(self, a: Point, b: Point, css: str) -> None:
        """A straight line."""
        self._add("line", css, x1=a[0], y1=a[1], x2=b[0], y2=b[1])

    def rect(self, x: float, y: float, width: float, height: float, css: str, tip: str = "") -> None:
        """A rectangle; `tip`: tooltip."""
        self._add("rect", css, tip=tip, x=x, y=y, width=max(width, 0), height=max(height, 0))

    def circle(self, at: Point, radius: float, css: str, tip: str = "") -> None:
        """A dot; `tip`: tooltip."""
        self._add("circle", css, tip=tip, cx=at[0], cy=at[1], r=radius)

    def path(self, points: Sequence[Point], css: str, *, closed: bool = False) -> None:
        """A line through `points`; `closed`: the polygon with these corners."""
        steps = " ".join(f"{'M' if i == 0 else 'L'}{_px(x)} {_px(y)}" for i, (x, y) in enumerate(points))
        element = ElementTree.SubElement(
            self._root, "path", {"class": css, "d": steps + (" Z" if closed else "")}
        )
        element.set("vector-effect", "non-scaling-stroke")

    def text(self, at: Point, text: str, css: str = "", anchor: str = "start") -> None:
        """One line of text; widens the image if the text does not fit.

        at      a point on the baseline
        anchor  part of the text that is at this point: start, middle or end
        """
        width = (SIGN if "axis" in css.split() else CHARACTER) * FONT * len(text)
        start = at[0] - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        self._left, self._right = min(self._left, start), max(self._right, start + width)
        self._add("text", css, text=text, x=at[0], y=at[1], text_anchor=anchor)

    def markup(self) -> str:
        """The image as SVG markup for use in HTML."""
        box = (self._left, 0.0, self._right - self._left, self._height)
        self._root.set("viewBox", " ".join(map(_px, box)))
        return ElementTree.tostring(self._root, encoding="unicode")

    def _add(self, tag: str, css: str, *, text: str = "", tip: str = "", **attributes: float | str) -> None:
        named = {name.replace("_", "-"): _px(value) for name, value in attributes.items()}
        element = ElementTree.SubElement(self._root, tag, {"class": css, **named} if css else named)
        element.text = text or None
        if tip:
            ElementTree.SubElement(element, "title").text = tip


def image(markup: str, style: str) -> str:
    """The result of `Drawing.markup` and its CSS as an SVG file.

    It has a light background, since an image cannot adapt to a dark page.
    """
    root = ElementTree.fromstring(markup)  # noqa: S314  (a `Drawing` wrote it, with all text escaped)
    left, _, width, height = map(float, root.attrib["viewBox"].split())
    width, height = width + 2 * MARGIN, height + 2 * MARGIN
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"{left - MARGIN:g} {-MARGIN:g} {width:g} {height:g}",
        "width": f"{width:g}",
        "height": f"{height:g}",
        "style": "background: #fcfcfa",
    }
    element = ElementTree.Element("style")
    element.text = re.sub(r"@media \(prefers-color-scheme: dark\) \{.*?\n\}\n", "", style, flags=re.DOTALL)
    root.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode")


def image_url(markup: str, style: str) -> str:
    """The SVG file of `image` as a data URL, for pages that allow images but no SVG markup."""
    return f"data:image/svg+xml;base64,{base64.b64encode(image(markup, style).encode()).decode()}"


def _px(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
