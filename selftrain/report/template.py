"""The Jinja environment and the CSS that all HTML pages use."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from selftrain.units import count_of

ASSETS = Path(__file__).parent / "assets"


def environment() -> Environment:
    """The Jinja environment for the templates in `assets`; it escapes all values."""
    made = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["count_of"] = count_of
    return made


def plot_style() -> str:
    """The plots' CSS."""
    return (ASSETS / "plots.css").read_text("utf-8")


def page_style() -> str:
    """The CSS of a page with plots."""
    return plot_style() + (ASSETS / "style.css").read_text("utf-8")
