"""Tests of what Prefect shows of a stage that runs in a child process: log lines, their levels, and progress."""

import logging
from typing import Any

import pytest

from tasks.display import ChildLog, level_of
from tasks.progress import Pace, describe
from tests.command import Finished, PrefectServer, wait_until


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep level and text."""
        self.rows.append((record.levelname, record.getMessage()))


@pytest.fixture
def kept() -> tuple[logging.Logger, list[tuple[str, str]]]:
    """A logger, and the rows that it keeps."""
    handler = Kept()
    logger = logging.Logger("kept", logging.DEBUG)
    logger.addHandler(handler)
    return logger, handler.rows


def test_a_childs_lines_are_logged_as_they_are_and_a_flood_is_counted(
    kept: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ChildLog, "PER_SECOND", 0)
    logger, rows = kept
    with ChildLog(logger) as log:
        log("50 % done")
        log("x" * 5000)
        for number in range(1000):
            log(f"line {number}")
    assert rows[0] == ("INFO", "50 % done")
    assert rows[1] == ("INFO", "x" * ChildLog.LONGEST)
    assert len(rows) == ChildLog.BURST + 1
    assert rows[-1] == ("INFO", f"({1002 - ChildLog.BURST} lines left out)")


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("{'loss': 0.5, 'error_rate': 2}", "INFO"),
        ("an error is what it is about", "INFO"),
        ("[2026-01-01 10:00:00,000] [WARNING] [engine.py:1:f] slow", "WARNING"),
        ("WARNING:root:careful", "WARNING"),
        ("/x/y.py:3: UserWarning: careful", "WARNING"),
        ("ZeroDivisionError: division by zero", "ERROR"),
        ("2026-01-01 ERROR lost", "ERROR"),
        ("CRITICAL no memory", "CRITICAL"),
        ("Writing model shards: 100%|██████████| 1/1 [00:00<00:00, 526.00it/s]", "DEBUG"),
    ],
)
def test_a_line_has_the_level_that_it_tells(line: str, level: str):
    assert logging.getLevelName(level_of(line)) == level


def test_progress_tells_rate_time_left_and_the_childs_figures(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("tasks.progress.time.monotonic", lambda: now[0])
    pace = Pace()
    assert pace(500) == 0, "a resumed stage begins where it was"
    now[0] += 10
    assert pace(520) == 2
    text = describe("sft", 520, 1000, "steps", 2, {"loss": 0.25, "tokens_per_second": 1234.5})
    assert text.split() == ["sft", "520/1000", "steps", "2/s", "4", "min", "00", "s", "left", "loss", "0.25", "tokens_per_second", "1234"]  # fmt: skip
    now[0] += 10
    assert pace(0) == 0, "the next count of the same stage"


def test_the_childs_lines_and_the_progress_are_on_the_server(smoke_run: Finished, server: PrefectServer):
    tasks = server.post("task_runs/filter", task_runs={"name": {"any_": ["sft"]}})
    ours = [task["id"] for task in tasks]

    def said() -> str:
        logs = server.post("logs/filter", logs={"task_run_id": {"any_": ours}}, limit=200)
        return "\n".join(log["message"] for log in logs)

    wait_until(
        lambda: "loss" in said(), "a line of the SFT child", said
    )  # the trainer prints a dict of figures
    # Of every run on this server: the latest may be another's, which was ended on purpose.
    chosen = {"key": {"any_": ["progress-sft"]}, "task_run_id": {"any_": ours}}
    shown = server.post("artifacts/filter", artifacts=chosen)
    assert {artifact["type"] for artifact in shown} == {"progress"}
    assert [a for a in shown if a["data"] == 100 and "steps" in a["description"]]
