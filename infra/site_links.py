"""MkDocs hook: copies files outside docs/ that pages link to onto the site, and points the links to the copies.

In the repository such a link is relative, for example `../infra/compose.yaml`, and works unchanged. On the site the copy of the
file is below `repository/`. A link to a file that does not exist stays as it is, and `mkdocs build --strict` fails on it.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<=\]\()([^)#\s]+)")
PLACE = "repository"


def outside(page: str, target: str) -> str | None:
    """The path in the repository of the file that a link points to; None if that is no file, or a file in docs/.

    page    the page with the link: its path below docs/; for a copy the path on the site, which begins with `repository/`
    target  the link's address
    """
    folder = PurePosixPath("docs", page).parent
    if PurePosixPath(page).parts[0] == PLACE:
        folder = PurePosixPath(*PurePosixPath(page).parts[1:]).parent
    path = normpath(str(folder / target))
    return path if (ROOT / path).is_file() and path.split("/")[0] not in ("docs", "..") else None


def on_files(files: Any, config: Any) -> Any:
    """Add the files outside docs/ that pages link to, and the files that these files link to in turn."""
    todo = [file for file in files if file.is_documentation_page()]
    while todo:
        page = todo.pop()
        for target in LINK.findall(Path(page.abs_src_path).read_text()):
            path = outside(page.src_uri, target)
            if path and files.get_file_from_path(f"{PLACE}/{path}") is None:
                made = File.generated(config, f"{PLACE}/{path}", abs_src_path=str(ROOT / path))
                files.append(made)
                if made.is_documentation_page():
                    todo.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace links to files outside docs/ by links to their copies; in a copy, also replace links to pages in docs/."""
    folder = str(PurePosixPath(page.file.src_uri).parent)

    def place(match: re.Match[str]) -> str:
        target = match[1]
        if "://" in target:
            return target
        path = outside(page.file.src_uri, target)
        if path:
            return relpath(f"{PLACE}/{path}", folder)
        if folder.startswith(PLACE):
            inside = normpath(str(PurePosixPath(*PurePosixPath(folder).parts[1:]) / target))
            if inside.startswith("docs/"):
                return relpath(inside.removeprefix("docs/"), folder)
        return target

    return LINK.sub(place, markdown)
