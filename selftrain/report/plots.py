"""The report's plots by themselves, for pages that are not the report."""

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

from selftrain.report.build import HTML_NAME
from selftrain.report.page import ASSETS

MARGIN = 14.0
"""Pixels of paper around a plot."""


def plots(folder: Path) -> list[tuple[str, str]]:
    """(what it shows, a `data:` URL of the image) of each plot of the report in `folder`, in the page's order.

    Raises OSError where there is no report. The images are light: nothing tells one that is embedded whether the page
    around it is dark.
    """
    css = (ASSETS / "plots.css").read_text("utf-8")
    css = re.sub(r"@media \(prefers-color-scheme: dark\) \{.*?\n\}\n", "", css, flags=re.DOTALL)
    page = (folder / HTML_NAME).read_text("utf-8")
    return [_alone(markup, css) for markup in re.findall(r"<svg viewBox=.*?</svg>", page, flags=re.DOTALL)]


def _alone(markup: str, css: str) -> tuple[str, str]:
    root = ElementTree.fromstring(markup)  # noqa: S314  (written by `svg.Drawing`, all text in it escaped)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    width, height = width + 2 * MARGIN, height + 2 * MARGIN
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}",
        "width": f"{width:g}",
        "height": f"{height:g}",
        "style": "background: #fcfcfa",
    }
    style = ElementTree.Element("style")
    style.text = css
    root.insert(0, style)
    data = base64.b64encode(ElementTree.tostring(root)).decode()
    return root.attrib["aria-label"], f"data:image/svg+xml;base64,{data}"
