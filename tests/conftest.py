"""Fixtures and settings for all tests: a separate environment, one Prefect server, and one finished run of the smoke config."""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Finished, PrefectServer, prefect_server, run_smoke
from tests.servers import S3Server, seaweed

_HOME = pytest.StashKey[str]()
SECONDS: Counter[str] = Counter()
"""Of the tests so far, by file."""
LAST: dict[str, float] = {}
"""When each process of `pytest -n` last ended a test."""
LONG_RUN = 120
"""Seconds of tests from which on it is told where they went."""

LONGEST = (
    "test_chaos.py", "test_sandbox_check.py", "test_sandbox_plain_set.py", "test_configs.py", "test_ends.py", "test_deployed.py",
    "test_docs.py", "test_champion.py", "test_sandbox_tricks.py", "test_outage.py", "test_starts_again.py", "test_deploy.py",
    "test_sandbox_truth.py", "test_sandbox_audit.py", "test_sandbox_libraries.py", "test_kill.py", "test_flow.py", "test_sandbox_contest.py",
    "test_own_data.py", "test_launch.py", "test_nodes.py", "test_dask.py", "test_slots.py", "test_serve_process.py", "test_sandbox_verdicts.py",
    "test_sampling.py", "test_training.py", "test_trainer.py",
)  # fmt: skip
"""Files of minutes, the longest first: where several processes share the tests (pytest -n), all then end at about the same time. At
the end of such a run it is told which files took longest; a file that is long and begins late makes the others wait."""

SLOW_FILES = (
    "test_chaos.py", "test_kill.py", "test_package.py", "test_chat.py", "test_champion.py", "test_configs.py", "test_deployed.py", "test_ends.py", "test_outage.py", "test_starts_again.py",
    "test_flow.py", "test_flow_s3.py", "test_dask.py", "test_nodes.py", "test_sandbox_check.py", "test_sandbox_contest.py",
    "test_sandbox_audit.py", "test_sandbox_docker.py", "test_sandbox_hostile.py", "test_sandbox_java.py", "test_sandbox_libraries.py",
    "test_sandbox_plain_set.py", "test_sandbox_tricks.py", "test_sandbox_truth.py", "test_execution.py", "test_training_export.py",
    "test_training_parallel.py", "test_training_resume.py", "test_versions_trained.py", "test_ppo_stage.py", "test_ranks.py", "test_sharded.py",
)  # fmt: skip
SLOW_NEEDS = {"docker", "s3", "page", "browser", "smoke_run", "server"}
"""Fixtures and parameters: daemons, servers, a browser, a finished run."""


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module is imported: libraries read it once, when they are."""
    config.stash[_HOME] = tempfile.mkdtemp(prefix="selftrain-tests-")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(
        PREFECT_HOME=config.stash[_HOME],
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
        DO_NOT_TRACK="1",
        HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1",
        TOKENIZERS_PARALLELISM="false",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tiers: `make test` leaves out what is marked slow, `make test-slow` runs the rest. Then see `LONGEST`; the order is as
    it was otherwise."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        values = (
            {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()
        )
        needs = SLOW_NEEDS & (values | set(getattr(item, "fixturenames", ())))
        if item.path.name in SLOW_FILES or needs:
            item.add_marker("slow")
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the seconds of each file, and note when each of the processes that share the tests was last heard of."""
    SECONDS[report.location[0]] += report.duration
    if node := getattr(report, "node", None):  # where this process runs no tests, but collects the results
        LAST[node.gateway.id] = time.monotonic()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell which files took longest, and for how many seconds each process had nothing to do at the end."""
    if LAST and sum(SECONDS.values()) > LONG_RUN:
        files = (f"{Path(name).name} {seconds:.0f}" for name, seconds in SECONDS.most_common(30))
        terminalreporter.write_line(f"seconds of the longest files: {', '.join(files)}")
        idle = (f"{name} {max(LAST.values()) - at:.0f}" for name, at in sorted(LAST.items()))
        terminalreporter.write_line(f"seconds without work at the end: {', '.join(idle)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete what Prefect kept."""
    shutil.rmtree(config.stash[_HOME], ignore_errors=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server for the whole session, which child processes find too."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        os.environ["PREFECT_API_URL"] = running.url
        yield running
        del os.environ["PREFECT_API_URL"]


@pytest.fixture(scope="session")
def smoke_run(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of `configs/smoke.yaml` through the real command line, finished. Tests must not change its store."""
    return run_smoke(tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole session. Its credentials are in nobody's environment: see `S3Server.environment`."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running
