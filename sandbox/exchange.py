"""Writes the files that the caller gives to a program, and reads the files that the program returns.

A program may replace its directories and files by symbolic links, so files are read without following links.
"""

import contextlib
import errno
import os
import stat
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from sandbox.encoding import decoded, encoded
from sandbox.errors import SandboxError

LONGEST_NAME = 200  # bytes of a file's name, with its folders
MOST_GIVEN = 1000  # files that a caller may give to a program, and files that it may ask for
MOST_ARGUMENTS, LONGEST_ARGUMENTS = 1000, 65_536  # arguments of a program; bytes of all of them
MOST_FILES = 10_000
"""A program's directory with more entries counts as too large, whatever the size of the files."""

Named = tuple[tuple[str, str], ...]
"""Files: (name, content in base64)."""


def check_name(name: str) -> None:
    """Raise `ValueError` unless `name` is a relative path inside the program's directory, with `/` between its parts."""
    parts = PurePosixPath(name).parts
    inside = parts and not name.startswith("/") and not name.endswith("/") and ".." not in parts
    if not inside or not _is_text(name) or len(encoded(name)) > LONGEST_NAME:
        raise ValueError(
            f"a file's name has to be a relative path without '..', of at most {LONGEST_NAME} bytes; got {name[:LONGEST_NAME]!r}"
        )


def _is_text(text: str) -> bool:
    """Whether the kernel takes `text` as a name or an argument: no NUL, and no surrogate that stands for no byte."""
    return "\0" not in text and decoded(encoded(text)) == text


def check_args(args: Sequence[str]) -> None:
    """Raise `ValueError` for arguments with which no program can be started."""
    if len(args) > MOST_ARGUMENTS:
        raise ValueError(f"args: got {len(args)}, allowed are at most {MOST_ARGUMENTS}")
    for at, text in enumerate(args):
        if not _is_text(text):
            expected = "expected text without NUL and single surrogates"
            raise ValueError(f"args[{at}]: {expected}, got {text[:80]!r}")
    if (size := sum(len(encoded(text)) for text in args)) > LONGEST_ARGUMENTS:
        raise ValueError(f"args: got {size} bytes, allowed are at most {LONGEST_ARGUMENTS}")


def check_files(files: Named, fetch: Sequence[str] = ()) -> None:
    """Raise `ValueError` for a name in `files` or `fetch` that leads out of the directory, for names in `files` of which one is used
    twice or is a folder of another, for content that is not base64, and for too many files."""
    for names in (files, fetch):
        if len(names) > MOST_GIVEN:
            raise ValueError(f"files: got {len(names)}, allowed are at most {MOST_GIVEN}")
    for name in fetch:
        check_name(name)
    paths = [PurePosixPath(name) for name, _ in files]
    for path in {path for path, count in Counter(paths).items() if count > 1}:
        raise ValueError(f"two files have the same name, {str(path)[:LONGEST_NAME]!r}")
    folders = {folder for path in paths for folder in path.parents}
    for path in folders.intersection(paths):
        raise ValueError(f"a file and a folder have the same name, {str(path)[:LONGEST_NAME]!r}")
    for name, content in files:
        check_name(name)
        try:
            content_of(content)
        except ValueError as error:
            raise ValueError(f"file {name!r}: its content is not base64: {error}") from error


def content_of(content: str) -> bytes:
    """What `content` stands for in base64, which may have line breaks, as of mail. Raises `ValueError`."""
    return b64decode("".join(content.split()), validate=True)


def write_files(directory: Path, files: Named, uid: int | None) -> None:
    """Write `files` into `directory`, before the program is compiled, and make `uid` their owner. A file that exists already (the
    program's source) is not overwritten."""
    for name, content in files:
        with contextlib.suppress(FileExistsError):
            write_inside(directory, name, content_of(content), uid)


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


def write_compiled(directory: Path, files: Mapping[str, bytes]) -> bool:
    """Write a compiler's files by name, as `write_inside` does; returns False if a name is too long."""
    try:
        for name, content in files.items():
            write_inside(directory, name, content)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
    return True


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
