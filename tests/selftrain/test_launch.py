"""Child processes: their progress, their failures, and that they do not outlive their parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import RuntimeConfig
from selftrain.errors import ChildFailed, UsageError
from selftrain.launch import LAST_LINES, launch
from selftrain.stage import Build, Outcome

HEAD = """
import sys, time
from selftrain.errors import StoreError, UsageError
from selftrain.launch import child_main, report_progress
from selftrain.stage import Outcome
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that launches a child with the given body of `work(child)`, on `processes` ranks."""
    (tmp_path / "modules").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))

    def start(body: str, processes: int = 1, config: Any = None, progress: Any = None) -> Outcome:
        work = "def work(child):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "modules" / "childish.py").write_text(f"{HEAD}\n{work}\nchild_main(work)\n")
        build = Build(
            config=config or {},
            inputs={"problems": tmp_path / "problems"},
            folder=tmp_path / "work",
            runtime=RuntimeConfig(processes=processes),
            progress=progress or (lambda **_: None),
        )
        return launch("childish", build, distributed=processes > 1, extra={"more": [1]})

    return start


def test_the_child_is_told_everything_and_its_outcome_comes_back(run: Any, tmp_path: Path):
    outcome = run(
        """
        return Outcome("digest", {
            "config": child.config, "problems": str(child.inputs["problems"]), "folder": str(child.folder),
            "processes": child.runtime["processes"], "extra": child.extra,
        })
        """,
        config={"seed": 3},
    )
    assert outcome == Outcome(
        "digest",
        {
            "config": {"seed": 3},
            "problems": str(tmp_path / "problems"),
            "folder": str(tmp_path / "work"),
            "processes": 1,
            "extra": {"more": [1]},
        },
    )


def test_progress_lines_reach_the_parent_and_other_lines_do_not(run: Any):
    seen: list[dict[str, Any]] = []
    run(
        """
        print("a line of a library", flush=True)
        report_progress(1, 2, "steps", loss=0.5)
        print("@progression is something else", file=sys.stderr, flush=True)
        report_progress(2, 2, "steps")
        return Outcome("")
        """,
        progress=lambda **line: seen.append(line),
    )
    assert seen == [
        {"done": 1, "total": 2, "unit": "steps", "figures": {"loss": 0.5}},
        {"done": 2, "total": 2, "unit": "steps", "figures": {}},
    ]


def test_a_failed_child_is_named_with_its_last_lines(run: Any):
    body = """
    for number in range(200):
        print("line", number)
    raise ZeroDivisionError("the reason")
    """
    with pytest.raises(ChildFailed, match="childish .*ended with code 1") as raised:
        run(body)
    lines = str(raised.value).splitlines()
    assert lines[-1] == "ZeroDivisionError: the reason"
    assert "line 199" in lines
    assert "line 100" not in lines
    assert len(lines) == LAST_LINES + 1


def test_the_last_words_of_a_rank_come_last_under_torchrun_too(run: Any):
    body = """
    import os
    if os.environ["RANK"] == "1":
        raise ZeroDivisionError("the reason")
    time.sleep(60)
    """
    with pytest.raises(ChildFailed, match=r"ended with code 1") as raised:
        run(body, processes=2)
    assert str(raised.value).splitlines()[-1].endswith("ZeroDivisionError: the reason")


def test_a_killed_child_is_a_failed_one(run: Any):
    with pytest.raises(ChildFailed, match="ended with code -9"):
        run("import os; os.kill(os.getpid(), 9)")


def test_a_child_that_ends_without_a_result_failed(run: Any):
    with pytest.raises(ChildFailed, match="ended without a result"):
        run("import os; os._exit(0)")


def test_an_outcome_of_an_earlier_child_is_not_taken_for_this_ones(run: Any):
    assert run('return Outcome("first")').records_digest == "first"
    with pytest.raises(ChildFailed, match="ended without a result"):
        run("import os; os._exit(0)")


def test_a_usage_error_is_raised_here_as_it_was_there(run: Any):
    with pytest.raises(UsageError) as raised:
        run(r'raise UsageError("first line\nsecond: C:\\new")')
    assert str(raised.value) == "first line\nsecond: C:\\new"


def test_another_error_of_ours_is_a_failed_child(run: Any):
    with pytest.raises(ChildFailed, match="StoreError: the disk is full"):
        run('raise StoreError("the disk is full")')


def test_a_usage_error_of_ranks_is_found_in_all_that_torchrun_says(run: Any):
    with pytest.raises(UsageError, match=r"^the batch is too large$"):
        run('raise UsageError("the batch is too large")', processes=2)


def test_files_of_the_users_folder_are_not_imported(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "queue.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(tmp_path / "here")
    assert run("import queue; return Outcome('fine')").records_digest == "fine"


PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
from pathlib import Path
from selftrain.config import RuntimeConfig
from selftrain.launch import launch
from selftrain.stage import Build

folder = Path(sys.argv[1])
runtime = RuntimeConfig(processes=int(sys.argv[2]))
launch("childish", Build({}, {}, folder, runtime, lambda **_: None), distributed=runtime.processes > 1)
"""
SLEEPER = """
import os, time
from pathlib import Path
def work(child):
    Path(child.folder, f"pid-{os.getpid()}").touch()
    time.sleep(600)
child_main(work)
"""


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_children_end_with_their_parent(tmp_path: Path, processes: int, kind: signal.Signals):
    (tmp_path / "childish.py").write_text(HEAD + SLEEPER)
    folder = tmp_path / "work"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), str(processes)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while len(children := [int(path.name[4:]) for path in folder.glob("pid-*")]) < processes:
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.05)
    assert all(alive(pid) for pid in children)
    parent.send_signal(kind)
    parent.wait(timeout=120)
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in children)
