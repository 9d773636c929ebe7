"""Writes the files that the caller gives to a program, and reads the files that the program returns.

A program may replace its directories and files by symbolic links, so files are read without following links.
"""

import contextlib
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from sandbox.errors import SandboxError

LONGEST_NAME = 200  # characters of a file's name, with its folders
MOST_FILES = 10_000
"""A program's directory with more entries counts as too large, whatever the size of the files."""

Named = tuple[tuple[str, str], ...]
"""Files: (name, content in base64)."""


def check_name(name: str) -> None:
    """Raise `ValueError` unless `name` is a relative path inside the program's directory, with `/` between its parts."""
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name.startswith("/")
        or name.endswith("/")
        or ".." in parts
        or "\0" in name
        or len(name) > LONGEST_NAME
    ):
        raise ValueError(
            f"a file's name has to be a relative path without '..', of at most {LONGEST_NAME} characters; got {name[:LONGEST_NAME]!r}"
        )


def check_files(files: Named) -> None:
    """Raise `ValueError` for a name that leads out of the directory, a name that is used twice, or content that is not base64."""
    if len({name for name, _ in files}) < len(files):
        raise ValueError("two files have the same name")
    for name, content in files:
        check_name(name)
        try:
            b64decode(content, validate=True)
        except ValueError as error:
            raise ValueError(f"file {name!r}: its content is not base64: {error}") from error


def write_files(directory: Path, files: Named, uid: int | None) -> None:
    """Write `files` into `directory`, before the program runs, and make `uid` their owner. A file that exists already (the
    program's source) is not overwritten."""
    for name, content in files:
        with contextlib.suppress(FileExistsError):
            write_inside(directory, name, b64decode(content), uid)


def write_inside(directory: Path, name: str, content: bytes, uid: int | None = None) -> None:
    """Write a new file into a program's directory, and make `uid` the owner of it and its folders. Raises `SandboxError` if its
    path leads out of the directory, `FileExistsError`."""
    path = directory / name
    if ".." in path.parts or not path.is_relative_to(directory):
        raise SandboxError(f"a compiler made a file named {name!r}")
    for folder in reversed(path.relative_to(directory).parents[:-1]):
        (directory / folder).mkdir(exist_ok=True)
        if uid is not None:
            os.chown(directory / folder, uid, uid)
    with open(path, "xb", opener=partial(os.open, mode=0o644)) as file:
        file.write(content)
        if uid is not None:
            os.fchown(file.fileno(), uid, uid)


def read_files(directory: Path, names: Iterable[str], most: int) -> Iterator[tuple[str, str]]:
    """(name, content in base64) of those of the named files that are regular files. A file that would make the total larger than
    `most` bytes is left out."""
    for name in names:
        content = _read(directory, PurePosixPath(name).parts, most)
        if content is not None and len(content) <= most:
            most -= len(content)
            yield name, b64encode(content).decode()


def _read(directory: Path, parts: tuple[str, ...], most: int) -> bytes | None:
    """The first `most` + 1 bytes of a regular file; None if it is no regular file or cannot be read."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, place)
        for part in parts[:-1]:
            place = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            stack.callback(os.close, place)
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
        stack.callback(os.close, file)
        if stat.S_ISREG(os.fstat(file).st_mode):
            with open(file, "rb", closefd=False) as stream:
                return stream.read(most + 1)
    return None


def is_over(directory: Path, most: int) -> bool:
    """Whether a directory tree takes more than `most` bytes on disk, or has more than `MOST_FILES` entries."""
    size = count = 0
    todo = [str(directory)]
    while todo:
        # The program may have removed the directory meanwhile, or closed it to us.
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                count += 1
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                if size > most or count > MOST_FILES:
                    return True
    return False
