"""Finds the class to run among the class files of a Java or Scala program.

It reads the class files because, unlike the source, they are unambiguous.
Format: https://docs.oracle.com/javase/specs/jvms/se17/html/jvms-4.html
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PUBLIC, _STATIC = 1, 8
_MAIN = (b"main", b"([Ljava/lang/String;)V")
_TEXT, _CLASS, _WIDE = 1, 7, (5, 6)  # tags in the constant pool; a wide constant takes two indices
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
"""Size in bytes of the constants with other tags, by tag, without the byte of the tag."""


@dataclass(frozen=True)
class ClassFile:
    """One class. `parent`: the name of its superclass. `nested`: whether it is inside another class or a method. `main_line`: the
    source line of its own `public static void main(String[])`; None if it has no such method. `file`: the source file that it was
    compiled from."""

    name: str
    parent: str
    public: bool
    nested: bool
    main_line: int | None
    file: str


def main_class(directory: Path, file: str = "") -> str | None:
    """The full name of the class to run among the class files under `directory`; None if there are no class files.

    Of the classes that have a `main`, their own or an inherited one, it is the public class, else the class whose `main` comes
    first in the source. If no class has a `main`, it is any class, so that `java` reports the error. Nested classes do not count.
    Classes of source `file` come before those of other files, which a caller may have given, as class files too.
    """
    found: dict[str, ClassFile] = {}
    for path in directory.rglob("*.class"):
        with suppress(KeyError, ValueError, IsADirectoryError):  # a given one may be anything
            one = read_class(path.read_bytes())
            found[one.name] = one

    def rank(one: ClassFile) -> tuple[bool, bool, bool, int, str]:
        holder = one
        for _ in found:
            if holder.main_line is not None or holder.parent not in found:
                break
            holder = found[holder.parent]
        return holder.main_line is None, one.file != file, not one.public, holder.main_line or 0, one.name

    outer = [one for one in found.values() if not one.nested]
    return min(outer, key=rank).name.replace("/", ".") if outer else None


def read_class(content: bytes) -> ClassFile:
    """Read a class file. Raises `KeyError` if it is not one."""
    data = _Data(content)
    data.read(8)  # magic number and version
    texts: dict[int, bytes] = {}
    classes: dict[int, int] = {}  # index of the class -> index of its name
    index, end = 1, data.number(2)
    while index < end:
        kind = data.number(1)
        if kind == _TEXT:
            texts[index] = data.read(data.number(2))
        elif kind == _CLASS:
            classes[index] = data.number(2)
        else:
            data.read(_SIZES[kind])
        index += 2 if kind in _WIDE else 1

    def attributes(holder: _Data, wanted: bytes) -> Iterator[_Data]:
        for _ in range(holder.number(2)):
            name, content = texts[holder.number(2)], holder.read(holder.number(4))
            if name == wanted:
                yield _Data(content)

    def first_line(code: _Data) -> int:
        code.read(4)  # sizes of stack and locals
        code.read(code.number(4))
        code.read(8 * code.number(2))  # exception handlers
        return min((lines.number(6) & 0xFFFF for lines in attributes(code, b"LineNumberTable")), default=0)

    access, this, parent = data.number(2), data.number(2), data.number(2)
    data.read(2 * data.number(2))  # interfaces
    main_line, nested = None, False
    for methods in (False, True):  # fields come first, in the same format
        for _ in range(data.number(2)):
            flags, called = data.number(2), (texts[data.number(2)], texts[data.number(2)])
            for code in attributes(data, b"Code"):
                if methods and called == _MAIN and flags & _PUBLIC and flags & _STATIC:
                    main_line = first_line(code)
    at, file = data.tell(), ""
    for of in attributes(data, b"SourceFile"):
        file = _text(texts[of.number(2)])
    data.seek(at)
    for table in attributes(data, b"InnerClasses"):
        nested = this in {table.number(8) >> 48 for _ in range(table.number(2))}
    names = [_text(texts[classes[one]]) if one else "" for one in (this, parent)]
    return ClassFile(names[0], names[1], bool(access & _PUBLIC), nested, main_line, file)


class _Data(io.BytesIO):
    def number(self, size: int) -> int:
        """The next `size` bytes as a big-endian number."""
        return int.from_bytes(self.read(size), "big")


def _text(modified: bytes) -> str:
    """Decode Java's modified UTF-8, which encodes characters beyond 16 bits as surrogate pairs."""
    return modified.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16")
