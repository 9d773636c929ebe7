"""Tests of `Sandbox` with many programs: order, duplicates, timeouts, retries, lost workers, errors, backends, identity."""

import itertools
import os
import shutil
import signal
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from sandbox import client
from sandbox.channel import Pipe
from sandbox.client import Cancel, Sandbox, content_key
from sandbox.errors import BackendUnavailable, SandboxError, ToolsMissing, UsageError
from sandbox.languages import LANGUAGES
from sandbox.verdicts import Case, Limits, Program, Result, Verdict
from sandbox.worker import Worker
from tests.needs import need
from tests.sandbox.conftest import need_backend

FINE = Program("fine", "py", "print('fine')")
UNIQUE = "import uuid; print(uuid.uuid4())"


def test_every_program_gets_one_result_under_its_own_id(sandbox: Sandbox) -> None:
    programs = [Program(f"p{number}", "py", f"print({number % 7})") for number in range(50)]
    results = {result.id: result for result in sandbox.run(iter(programs))}
    assert sorted(results) == sorted(program.id for program in programs)
    assert all(results[f"p{number}"].stdout == f"{number % 7}\n" for number in range(50))
    assert sum(not result.cached for result in results.values()) == 7


def test_identical_programs_run_once(sandbox: Sandbox) -> None:
    twins = [Program(str(number), "py", UNIQUE) for number in range(5)]
    results = list(sandbox.run(twins))
    assert len({result.stdout for result in results}) == 1
    assert sum(result.cached for result in results) == 4


def test_what_differs_in_anything_but_the_id_runs_by_itself(sandbox: Sandbox) -> None:
    programs = [
        Program("a", "py", UNIQUE),
        Program("b", "py", UNIQUE + "\n"),
        Program("c", "py", UNIQUE, cases=(Case("", None),)),
        Program("d", "py", UNIQUE, cases=(Case("x", None),)),
        Program("e", "py", UNIQUE, limits=Limits(cpu_seconds=9)),
    ]
    assert len({content_key(program) for program in programs}) == 5
    assert len({result.stdout for result in sandbox.run(programs)}) == 5
    defaults = Program("f", "py", UNIQUE, limits=LANGUAGES["py"].limits)
    assert content_key(defaults) == content_key(programs[0])


def test_programs_are_read_only_some_ahead() -> None:
    read = itertools.count()
    endless = (Program(str(number), "sh", f"echo {number}") for number in read)
    with Sandbox("process", workers=2) as sandbox:
        results = sandbox.run(endless)
        assert len([next(results) for _ in range(5)]) == 5
        del results
    assert next(read) <= 5 + 2 * 2 * 32  # two batches for each worker


def test_a_timeout_is_believed_only_after_a_second_run() -> None:
    """The program is slow only in its first run; without isolation it finds the file that the first run left in a folder that is
    not the program's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    witness = folder / "witness"
    source = f"""
import pathlib
witness = pathlib.Path({str(witness)!r})
if not witness.exists():
    witness.touch()
    while True: pass
"""
    try:
        with Sandbox("process") as sandbox:
            (result,) = sandbox.run([Program("x", "py", source, limits=Limits(cpu_seconds=0.3))])
    finally:
        shutil.rmtree(folder)
    assert result.verdict is Verdict.passed


def test_an_early_timeout_holds_up_no_other_result() -> None:
    slow = Program("slow", "py", "while True: pass", limits=Limits(cpu_seconds=0.3))
    rest = [Program(str(number), "py", f"print({number})") for number in range(5)]
    with Sandbox("process") as sandbox:
        ids = [result.id for result in sandbox.run([slow, slow, *rest])]
    assert ids == ["0", "1", "2", "3", "4", "slow", "slow"]


def test_several_threads_may_run_programs(sandbox: Sandbox) -> None:
    seen: list[list[bool]] = []

    def run(name: str) -> None:
        programs = [Program(f"{name}{number}", "sh", f"echo {name}{number}") for number in range(10)]
        seen.append(sorted(result.stdout.strip() == result.id for result in sandbox.run(programs)))

    threads = [threading.Thread(target=run, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[True] * 10] * 3


def test_bad_input_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match="unknown language 'cobol'"):
        list(sandbox.run([Program("x", "cobol", "")]))
    with pytest.raises(UsageError, match="workers must be at least 1, got 0"):
        Sandbox("process", workers=0)
    with pytest.raises(UsageError, match="unknown sandbox backend 'chroot'; known: auto"):
        Sandbox("chroot")  # type: ignore[arg-type]


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of missing tools is set here, because the worker is another process with its own table."""
    with Sandbox("process") as sandbox:
        sandbox._missing["php"] = ("php",)
        with pytest.raises(
            ToolsMissing, match="language 'php' needs php, not found by sandbox backend 'process'"
        ):
            list(sandbox.run([Program("x", "php", "")]))
        assert sandbox.missing_tools("php") == ("php",)


def test_the_identity_names_versions_and_rules(sandbox: Sandbox) -> None:
    identity = sandbox.identity("py")
    assert identity.startswith("py python3: Python 3.")
    assert f"rules {LANGUAGES['py'].rules()}" in identity
    assert "sha256:" not in identity
    assert sandbox.identity("py") == identity


def test_auto_never_takes_the_backend_that_isolates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setattr("sandbox.backends.bubblewrap.PATH", "/nowhere")
    with pytest.raises(BackendUnavailable, match=r"no sandbox backend .* apt-get install bubblewrap"):
        Sandbox("auto")


def test_auto_takes_bubblewrap_where_docker_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    need_backend("bubblewrap")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with Sandbox("auto") as sandbox:
        assert sandbox.backend == "bubblewrap"


def test_auto_takes_docker_where_it_is_ready() -> None:
    need_backend("docker")
    with Sandbox("auto") as sandbox:
        assert sandbox.backend == "docker"


def test_no_isolation_is_told(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        caplog.clear()
        Sandbox("process").close()
        assert "isolates nothing" in caplog.text


@pytest.mark.parametrize("command", [("false",), ("cat",), ("/nowhere/python",)])
def test_a_worker_that_does_not_work_is_an_error(command: tuple[str, ...]) -> None:
    worker = Worker(partial(Pipe, command))
    with pytest.raises(SandboxError):
        worker.judge([Program("x", "py", "print(1)")])
    worker.close()


def test_a_closed_sandbox_judges_nothing() -> None:
    sandbox = Sandbox("process")
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        list(sandbox.run([Program("x", "py", "print(1)")]))


def test_a_folder_that_programs_cannot_enter_is_no_mistake_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(os.geteuid() == 0, "only root runs programs as another user")
    closed = tmp_path / "closed"
    (closed / "inside").mkdir(parents=True)
    closed.chmod(0o700)
    monkeypatch.setenv("TMPDIR", str(closed / "inside"))
    with (
        pytest.raises(SandboxError, match=rf"cannot get into {closed},.*set TMPDIR"),
        Sandbox("process") as box,
    ):
        list(box.run([Program("right", "py", "print(1)")]))


def test_what_a_lost_worker_had_not_answered_is_judged_again(caplog: pytest.LogCaptureFixture) -> None:
    """Several programs are sent to a worker at once; those without a result are judged again."""
    programs = [
        Program(
            str(n), "py", f"import time; time.sleep(0.2); print({n})", (Case("", f"{n if n != 5 else 0}"),)
        )
        for n in range(8)
    ]
    with Sandbox("process") as sandbox:
        sandbox.need("py")
        (worker,) = [worker for worker in sandbox._workers if worker._channel]
        assert isinstance(worker._channel, Pipe)
        first = worker._channel.process.pid
        sandbox._batch_sizes["py"] = len(programs)
        threading.Timer(0.7, os.kill, (first, 9)).start()
        found = {result.id: result for result in sandbox.run(programs)}
        assert worker._channel.process.pid != first
    assert {id: result.stdout for id, result in found.items()} == {p.id: f"{p.id}\n" for p in programs}
    assert [id for id, result in found.items() if result.verdict is not Verdict.passed] == ["5"]
    assert found["5"].verdict is Verdict.wrong_answer


def test_the_only_program_of_a_call_can_be_interrupted() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    slow = Program("slow", "py", "import time; time.sleep(2); print('slow')")
    usual = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Sandbox("process") as sandbox:
            assert [result.verdict for result in sandbox.run([FINE])] == [Verdict.passed]
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(KeyboardInterrupt):
                list(sandbox.run([slow]))
            [result] = sandbox.run([FINE])  # and not what was left of the other's answer
            assert (result.id, result.stdout) == ("fine", "fine\n")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def test_a_call_that_is_cancelled_as_its_program_ends_costs_the_next_program_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Sandbox("process") as sandbox:
        call = Cancel()
        with sandbox._worker("py") as worker, call.busy(worker):
            assert worker.judge([FINE])[0].verdict is Verdict.passed
            call.cancel()
        assert [result.verdict for result in sandbox.run([FINE])] == [Verdict.passed]
        assert "attempt" not in caplog.text


def test_the_only_program_of_a_call_takes_no_other_thread() -> None:
    with Sandbox("process") as sandbox:
        sandbox._threads.shutdown()
        [result] = sandbox.run([FINE])
        assert (result.id, result.stdout) == ("fine", "fine\n")


def test_batches_are_as_long_as_programs_are_short() -> None:
    sandbox = Sandbox("process")
    py = [Program(str(n), "py", "") for n in range(7)]
    sh = [Program(str(n), "sh", "") for n in range(3)]
    sandbox._batch_sizes["py"] = 3
    found = [[program.id for program in batch] for batch in sandbox._batches(iter([*py[:5], *sh, *py[5:]]))]
    assert found == [["0", "1", "2"], ["3", "4"], ["0"], ["1"], ["2"], ["5", "6"]]
    with sandbox:
        results = list(sandbox.run([Program(str(n), "sh", f"sleep 0.06 # {n}") for n in range(2)]))
        assert len(results) == 2
        assert sandbox._batch_sizes["sh"] == 1
    assert [client._batch_size(seconds) for seconds in (0.06, 0.02, 0.01, 1e-6)] == [1, 2, 5, 32]


@pytest.mark.slow
def test_timeouts_are_confirmed_side_by_side_where_there_are_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def most_at_once(processors: int) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
        counts, lock, running = [], threading.Lock(), 0
        judge = Sandbox._judge

        def counted(self: Sandbox, program: Program, call: Cancel) -> Result:
            nonlocal running
            with lock:
                running += 1
                counts.append(running)
            time.sleep(0.2)
            try:
                return judge(self, program, call)
            finally:
                with lock:
                    running -= 1

        endless = [
            Program(str(at), "py", f"while True: {at}", limits=Limits(cpu_seconds=0.2)) for at in range(6)
        ]
        with Sandbox("process", workers=4) as sandbox, monkeypatch.context() as patched:
            results = list(sandbox._in_parallel(iter(endless), Cancel()))
            assert {result.verdict for _, result in results} == {Verdict.timeout}
            patched.setattr(Sandbox, "_judge", counted)
            confirmed = list(sandbox._confirm(endless, Cancel()))
        assert [program.id for program, _ in confirmed] == [program.id for program in endless]
        assert {result.verdict for _, result in confirmed} == {Verdict.timeout}
        return max(counts)

    assert [most_at_once(processors) for processors in (1, 2, 5, 16)] == [1, 1, 2, 4]


def test_a_timeout_of_a_later_case_is_confirmed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    confirmed: list[str] = []
    confirm = Sandbox._confirm

    def noted(self: Sandbox, programs: list[Program], call: Cancel) -> object:
        confirmed.extend(program.id for program in programs)
        return confirm(self, programs, call)

    monkeypatch.setattr(Sandbox, "_confirm", noted)
    source = "n = int(input())\nwhile n == 2: pass\nprint(0)"
    cases = (Case("1", "1"), Case("2", "2"), Case("0", "0"))
    with Sandbox("process") as sandbox:
        limits = Limits(cpu_seconds=0.3)
        [result] = sandbox.run([Program("a", "py", source, cases, limits=limits, every_case=True)])
    assert confirmed == ["a"]
    assert [case.verdict for case in result.cases] == [Verdict.wrong_answer, Verdict.timeout, Verdict.passed]
    assert result.verdict is Verdict.wrong_answer
