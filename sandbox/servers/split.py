"""Runs a candidate's code and its tests in two processes; the program that `sandbox.split` has judged.

The candidate's process answers calls that come over a pipe. The tests' process reads the tests from standard input after the other
one has been forked, and nothing of it can be read or traced. What crosses are plain values only, in a format of its own (`put`).

Standard input has the sizes of the three parts that follow, as numbers of 8 hexadecimal digits: the names of the functions that the
tests call, separated by blanks; the candidate's code; the tests.

Exit codes: 0 the tests passed; WRONG an assertion failed; UNFIT the program cannot be split.
"""

import builtins
import ctypes
import os
import sys
import types

WRONG, UNFIT = 70, 77
BRACKETS: dict[type, str] = {list: "[]", tuple: "()", set: "{}", frozenset: "<>"}
MAKE = {ends[0]: (ends[1], kind) for kind, ends in BRACKETS.items()}


def put(value: object) -> str:
    """`value` as text. Only exact types cross, because a class of the program may have its own `__eq__`. Raises `TypeError`."""
    kind = type(value)
    if value is None or kind is bool:
        return str(value)[0]
    if kind is int:
        return f"i{value:x};"
    if kind is float:
        return f"f{value.hex()};"  # type: ignore[attr-defined]
    if kind is str:
        return f"s{value.encode('utf-8', 'surrogatepass').hex()};"  # type: ignore[attr-defined]
    if kind is bytes:
        return f"b{value.hex()};"  # type: ignore[attr-defined]
    if kind is dict:
        return ":" + "".join(put(key) + put(one) for key, one in value.items()) + "."  # type: ignore[attr-defined]
    if kind not in BRACKETS:
        raise TypeError(f"no plain value: {kind.__name__}")
    items = list(value)  # type: ignore[call-overload]
    if kind in (set, frozenset) and list(kind(items)) != items:
        raise TypeError("a set with another order when it is made again")
    return BRACKETS[kind][0] + "".join(map(put, items)) + BRACKETS[kind][1]


def get(text: str) -> object:
    """The inverse of `put`. Raises `ValueError`, `TypeError`, `RecursionError` for a text that `put` does not make."""
    value, end = _get(text, 0)
    if end != len(text):
        raise ValueError("text after a value")
    return value


def _get(text: str, at: int) -> "tuple[object, int]":
    kind, at = text[at : at + 1], at + 1
    if kind in "NTF" and kind:
        return {"N": None, "T": True, "F": False}[kind], at
    if kind in MAKE or kind == ":":
        last, make = MAKE.get(kind, (".", lambda items: dict(zip(items[::2], items[1::2], strict=True))))
        items = []
        while text[at : at + 1] != last:
            one, at = _get(text, at)
            items.append(one)
        return make(items), at + 1
    end = text.index(";", at)
    body = text[at:end]
    if kind == "i":
        return int(body, 16), end + 1
    if kind == "f":
        return float.fromhex(body), end + 1
    if kind not in ("s", "b"):
        raise ValueError(f"no kind of value: {kind!r}")
    found = bytes.fromhex(body)
    return found.decode("utf-8", "surrogatepass") if kind == "s" else found, end + 1


class Pipe:
    """Values over two descriptors, one a line."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target, self.rest = source, target, b""

    def send(self, value: object) -> None:
        """Raises as `put`, and `OSError`."""
        data = put(value).encode() + b"\n"
        while data:
            data = data[os.write(self.target, data) :]

    def receive(self) -> object:
        """Raises as `get`, and `EOFError`."""
        parts = [self.rest]
        while b"\n" not in parts[-1]:
            parts.append(os.read(self.source, 1 << 16))
            if not parts[-1]:
                raise EOFError
        line, _, self.rest = b"".join(parts).partition(b"\n")
        return get(line.decode())


def answer(candidate: str, pipe: Pipe) -> None:
    """In the candidate's process: run its code, then answer calls of its functions until the pipe ends."""
    sys.setrecursionlimit(sys.getrecursionlimit() + 20)  # the frames below the candidate
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    names = module.__dict__
    names.update(__builtins__=builtins, __file__=sys.argv[0])
    exec(compile(candidate, sys.argv[0], "exec", dont_inherit=True), names)  # noqa: S102 - the point of it all
    pipe.send([name for name, value in names.items() if type(value) is types.FunctionType])
    while True:
        request = pipe.receive()
        assert type(request) is list
        name, given, named = request
        before = put([given, named])
        try:
            said: list[object] = ["result", names[name](*given, **named)]
        except Exception as error:
            known = getattr(builtins, type(error).__name__, None) is type(error)
            lost = not known or isinstance(error, (RecursionError, MemoryError))
            said = ["unfit"] if lost else ["error", type(error).__name__, list(error.args)]
        try:
            pipe.send(said if put([given, named]) == before else ["unfit"])
        except (TypeError, RecursionError):
            pipe.send(["unfit"])


def proxy(name: str, pipe: Pipe) -> types.FunctionType:
    """In the tests' process: a function that calls the candidate's function `name`."""

    def call(*given: object, **named: object) -> object:
        try:
            pipe.send([name, given, named])
            said = pipe.receive()
            assert type(said) is list
            if said[0] == "result":
                return said[1]
            kind = vars(builtins)[said[1]]
            assert said[0] == "error"
            assert issubclass(kind, Exception)
            error = kind(*said[2])
        except BaseException:
            os._exit(UNFIT)
        raise error

    return call  # type: ignore[return-value]


def test(tests: str, wanted: "set[str]", pipe: Pipe) -> None:
    """In the tests' process: run the tests, which call the functions `wanted` of the other process. Returns if they pass."""
    functions = pipe.receive()
    if type(functions) is not list or not wanted <= {*map(str, functions)}:
        os._exit(UNFIT)
    names: dict[str, object] = {"__name__": "__main__"}
    names.update((name, proxy(name, pipe)) for name in wanted)
    try:
        exec(compile(tests, "tests", "exec", dont_inherit=True), names)  # noqa: S102 - the tests are the caller's
    except AssertionError:
        os._exit(WRONG)


def read(size: int) -> str:
    """The next `size` bytes of standard input, not one more."""
    found = b""
    while len(found) < size:
        part = os.read(0, size - len(found))
        if not part:
            os._exit(UNFIT)
        found += part
    return found.decode("utf-8", "surrogateescape")


def run() -> None:
    """Fork the candidate's process and run the tests in this one."""
    # PR_SET_DUMPABLE: nobody with this user reads or traces this process.
    if ctypes.CDLL(None).prctl(4, 0, 0, 0, 0):
        os._exit(UNFIT)
    sizes = [int(read(8), 16) for _ in range(3)]
    wanted, candidate = {*read(sizes[0]).split()}, read(sizes[1])
    (to_them, from_us), (to_us, from_them) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for fd in (from_us, to_us):
                os.close(fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            answer(candidate, Pipe(to_them, from_them))
        finally:
            os._exit(0)
    try:
        for fd in (to_them, from_them):
            os.close(fd)
        test(read(sizes[2]), wanted, Pipe(to_us, from_us))
    except BaseException:
        os._exit(UNFIT)
    os.kill(child, 9)
    os.waitpid(child, 0)
    for name in ("ctypes", "_ctypes"):  # then the warm interpreter knows that its end needs no finalization
        sys.modules.pop(name)


if __name__ == "__main__":
    run()
