"""Tests of the figures for Prometheus: what flows keep, also at once and when killed, and what the endpoint answers."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from selftrain.config import RunConfig
from selftrain.errors import UsageError
from selftrain.stage import Context, Outcome, Stage
from selftrain.store.store import Store
from tasks import figures
from tasks.run import Run
from tests.command import ROOT


def judge(build: Context) -> Outcome:
    """A stage `execute` without programs."""
    return Outcome("", {"verdicts": {"passed": 3, "sandbox_error": 1}, "gpu_memory_bytes": 2**31})


EXECUTE = Stage("execute", 1, judge)
KEEP = "from tasks import figures\nfor _ in range(40): figures._keep(lambda found: figures._add(found, 'programs', 1, 'a', 'b'))"


class Keeping(Run):
    """Builds at once, and keeps figures as a flow does."""

    def execute(self, step: Any, there: bool) -> None:
        """Build the step, or count a hit."""
        if there:
            figures.keep_hit(self, step)
        elif self.build(step):
            figures.keep_built(self, step, self.store.manifest(step.ref) or {})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, in which figures are wanted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(figures.VARIABLE, "0")
    return tmp_path / "cache"


def answered(port: int) -> dict[tuple[str, ...], float]:
    """What the endpoint says, read by Prometheus' own parser: name and values of labels -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_the_endpoint_answers_with_what_runs_have_kept(cache: Path, tmp_path: Path):
    for _ in range(2):
        run = Keeping(RunConfig(name="demo"), Store(str(tmp_path / "store")))
        run.do(EXECUTE, "execute-sft-rl", {}, {})
    figures.keep_success(run)
    server, thread = figures.serve("0")
    try:
        said = answered(server.server_port)
    finally:
        server.shutdown()
        thread.join()
    step = ("demo", "execute", "execute-sft-rl")
    assert said["selftrain_stage_gpu_memory_bytes", *step] == 2**31
    assert said["selftrain_stage_seconds", *step] >= 0
    assert said["selftrain_stages_built_total", *step[:2]] == 1
    assert said["selftrain_stages_cached_total", *step[:2]] == 1
    assert said["selftrain_programs_total", step[0], "sandbox_error"] == 1
    assert said["selftrain_last_success_timestamp_seconds", step[0]] >= run.started


def test_runs_at_once_lose_no_count_and_a_kill_leaves_figures_that_can_be_read(cache: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen([sys.executable, "-c", KEEP], env=environment) for _ in range(2)]
    assert [run.wait(600) for run in runs] == [0, 0]
    assert figures.read()["programs"] == {'["a", "b"]': 80}
    endless = KEEP.replace("range(40)", "iter(int, 1)")
    killed = subprocess.Popen([sys.executable, "-c", endless], env=environment)
    while figures.read()["programs"]['["a", "b"]'] < 100:
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert figures.read()["programs"]['["a", "b"]'] >= 100
    figures._keep(lambda found: None)  # the lock is free


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"other": {"[]": 1}}'])
def test_figures_of_another_version_or_damaged_ones_begin_anew(cache: Path, content: bytes):
    (cache / "selftrain" / "metrics").mkdir(parents=True)
    (cache / "selftrain" / "metrics" / "figures.json").write_bytes(content)
    assert figures.read() == {}


def test_without_the_setting_nothing_is_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(figures.VARIABLE)
    figures.keep_success(Run(RunConfig(), Store(str(tmp_path / "store"))))
    assert not cache.exists()


def test_figures_that_cannot_be_written_do_not_end_the_run(cache: Path, tmp_path: Path):
    cache.write_text("a file where the folder should be")
    figures.keep_success(Run(RunConfig(), Store(str(tmp_path / "store"))))


@pytest.mark.parametrize("address", ["nine", "70000", "127.0.0.1:", "no.such.host.invalid:0"])
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(UsageError, match="expected a free PORT"):
        figures.serve(address)


def test_a_worker_whose_port_is_taken_says_so_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {"PYTHONPATH": str(ROOT), figures.VARIABLE: str(taken.getsockname()[1])}
        command = [sys.executable, "-m", "flows.worker"]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=600
        )
    assert done.returncode == 2
    assert done.stderr.startswith(f"selftrain: {figures.VARIABLE}=")
    assert "Address already in use" in done.stderr
    assert done.stderr.count("\n") == 1
