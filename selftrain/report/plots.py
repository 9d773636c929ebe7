"""Extracts the report's plots as images, for use outside of the report."""

import re
from pathlib import Path

from selftrain.report.build import HTML_NAME
from selftrain.report.svg import image_url
from selftrain.report.template import plot_style


def plots(folder: Path) -> list[tuple[str, str]]:
    """(label, `data:` URL of the image) of each plot of the report in `folder`, in the order of the page.

    Raises OSError if there is no report.
    """
    style = plot_style()
    page = (folder / HTML_NAME).read_text("utf-8")
    found = re.findall(r'(<svg [^>]*?aria-label="([^"]*)".*?</svg>)', page, flags=re.DOTALL)
    return [(label, image_url(markup, style)) for markup, label in found]
