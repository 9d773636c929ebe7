"""Tests of children that are forks of a process that has imported their libraries."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from selftrain.errors import ChildFailed
from selftrain.launch import forkserver
from selftrain.launch.commands import CHILD
from selftrain.launch.forkserver import ForkServer
from selftrain.launch.processes import run
from tests.command import processes, wait_until
from tests.needs import need

LIBRARY = """
import os, pathlib
place = pathlib.Path(__file__).with_name("imports")
with place.open("a") as file:
    file.write(f"{os.getpid()}\\n")
"""


class Place:
    """A folder of modules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "costly.py").write_text(LIBRARY)

    def run(
        self, body: str, *arguments: str, cancel: Callable[[], str | None] = lambda: None, **environment: str
    ) -> str:
        """Run a module with `body`, which imports the costly library, as a child; its output."""
        path = self.folder / "child.py"
        text = f"import costly\nif __name__ == '__main__':\n    import os, sys, time\n    {body}\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        variables = (
            os.environ | {"PYTHONPATH": f"{self.folder}:{os.environ.get('PYTHONPATH', '')}"} | environment
        )
        command = [sys.executable, "-m", CHILD, "child", str(self.folder), *arguments]
        return run(command, "child", variables, lambda _: None, cancel_reason=cancel, fork=True)

    def run_module(self, name: str, text: str) -> str:
        """Run a module of its own as a child; its output."""
        (self.folder / f"{name}.py").write_text(text)
        variables = os.environ | {"PYTHONPATH": f"{self.folder}:{os.environ.get('PYTHONPATH', '')}"}
        return run([sys.executable, "-m", CHILD, name], name, variables, lambda _: None, fork=True)

    @property
    def imports(self) -> list[int]:
        """The processes that have imported the library."""
        return [int(line) for line in (self.folder / "imports").read_text().split()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    need(forkserver.available(), "no fork server on this system")
    server = ForkServer({"OF": str(tmp_path)})
    monkeypatch.setattr("selftrain.launch.processes.FORK_SERVER", server)
    yield Place(tmp_path)
    server._close()


def test_children_share_one_import_and_are_what_their_command_says(place: Place):
    body = 'print(os.getpid(), sys.argv[2:], sys.orig_argv[2:4], os.getcwd(), os.environ["OWN"], os.getpgid(0) == os.getpid())'
    first, second = (place.run(body, argument, OWN="own").split(" ", 1) for argument in ("a", "b"))
    assert first[0] != second[0]
    rest = f"['{CHILD}', 'child'] {os.getcwd()} own True"
    assert [first[1], second[1]] == [f"['a'] {rest}", f"['b'] {rest}"]
    assert len(place.imports) == 1
    assert str(place.imports[0]) not in (first[0], second[0])


def test_further_ranks_of_a_child_are_forks_of_it_and_end_with_it(place: Place):
    body = (
        "from selftrain.launch.launch import _start_other_ranks; "
        "others = _start_other_ranks(3); rank = os.environ['RANK']; "
        # One write: `print` makes several, between which another rank may write.
        "os.write(1, f'{rank} of {os.environ[\"WORLD_SIZE\"]} {os.getpgid(0)}\\n'.encode()); "
        "seen = sys.argv[2]; open(seen, 'w').close() if rank == '1' else None; "
        "[time.sleep(0.01) for _ in iter(lambda: os.path.exists(seen), True)]; "
        "os.read(0, 1) if rank == '1' else None; "  # which returns at the end of rank 0
        "codes = others[1:] and [others[1]()]; os.write(1, f'{codes}\\n'.encode()) if rank == '0' else sys.exit(7)"
    )
    lines = place.run(body, str(place.folder / "seen")).splitlines()
    ranks = [line for line in lines if " of " in line]
    assert sorted(line.split(" of ")[0] for line in ranks) == ["0", "1", "2"]
    assert len({line.split()[-1] for line in ranks}) == 1, "one process group"
    assert "[7]" in lines
    assert len(place.imports) == 1


def test_another_environment_gets_another_import(place: Place):
    assert [place.run('print(os.environ["OWN"])', OWN=own) for own in ("a", "b", "b")] == ["a", "b", "b"]
    assert len(place.imports) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit(3)", "code 3"),
        ("sys.exit('no')", "code 1; its last lines:\nno"),
        ("raise ValueError('wrong')", "code 1; its last lines:\n(?s:.*)ValueError: wrong"),
        ("os.kill(os.getpid(), 9)", "code -9"),
    ],
)
def test_a_failure_is_told_as_that_of_any_child(place: Place, body: str, said: str):
    with pytest.raises(ChildFailed, match=said):
        place.run(body)
    assert place.run("print('and on')") == "and on"


def test_an_error_of_an_import_is_the_child_s(place: Place):
    with pytest.raises(ChildFailed, match="No module named 'nowhere'"):
        place.run("import nowhere")
    (place.folder / "costly.py").write_text("raise RuntimeError('broken library')")
    with pytest.raises(ChildFailed, match="broken library"):
        place.run("print()", OTHER="environment")


def test_a_server_that_was_killed_is_started_again(place: Place):
    place.run("pass")
    os.kill(place.imports[0], signal.SIGKILL)
    assert place.run("print('here')") == "here"
    assert len(place.imports) == 2


def test_a_child_whose_server_is_killed_has_failed_and_does_not_work_on(place: Place):
    def cancel() -> str | None:
        if processes("child", place.folder):
            os.kill(place.imports[0], signal.SIGKILL)
        return None

    started = time.monotonic()
    with pytest.raises(ChildFailed, match="code -9"):
        place.run("time.sleep(60)", cancel=cancel)
    assert time.monotonic() - started < 30
    wait_until(lambda: not processes("child", place.folder), "the end of the child", seconds=10)
    assert place.run("print('here')") == "here"


def test_a_server_that_cannot_fork_leaves_the_children_that_it_has(place: Place):
    """As where the memory or the number of processes is at its limit."""
    begun, end = place.folder / "begun", place.folder / "end"
    body = "open(sys.argv[2], 'w'); [time.sleep(0.01) for _ in iter(lambda: os.path.exists(sys.argv[3]), True)]; print('well')"
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(place.run(body, str(begun), str(end))))
    thread.start()
    wait_until(begun.exists, "the first child", seconds=20)
    full = "import os\ndef fork():\n    raise BlockingIOError\nos.fork = fork\nif __name__ == '__main__':\n    print('alone')\n"
    assert place.run_module("full", full) == "alone"
    end.touch()
    thread.join(20)
    assert said == ["well"]


def test_a_library_that_crashes_when_it_is_imported_ends_the_child_as_without_a_server(place: Place):
    with pytest.raises(ChildFailed, match="code -11"):
        place.run_module("crashing", "import os\nos.kill(os.getpid(), 11)\n")
    assert place.run("print('and on')") == "and on"


def test_a_child_is_ended_with_its_descendants_and_is_found_by_its_command(place: Place):
    seen: list[Any] = []

    def cancel() -> str | None:
        seen.extend(processes("child", place.folder))
        return "enough" if len(seen) >= 3 else None

    body = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True); os.fork(); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(ChildFailed, match="enough"):
        place.run(body, cancel=cancel)
    assert time.monotonic() - started < 30
    wait_until(lambda: not processes("child", place.folder), "the end of the child", seconds=10)


def test_children_run_beside_each_other(place: Place):
    said: list[str] = []
    body = "open(sys.argv[2], 'w'); [time.sleep(0.01) for _ in iter(lambda: os.path.exists(sys.argv[3]), True)]; print(sys.argv[2])"
    (a, b), threads = (str(place.folder / name) for name in "ab"), []
    Path(a).touch()
    place.run(body, b, a)
    Path(a).unlink()
    Path(b).unlink()
    for own, others in ((a, b), (b, a)):
        threads.append(
            threading.Thread(target=lambda *names: said.append(place.run(body, *names)), args=(own, others))
        )
        threads[-1].start()
    for thread in threads:
        thread.join(60)
    assert sorted(said) == [a, b]
    assert len(place.imports) == 1
