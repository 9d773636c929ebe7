"""Tests of what Prefect shows: names of runs, keys of artifacts, and of a stage's child process log lines, levels and progress."""

import json
import logging
import logging.config
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.artifacts import ArtifactRequest
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH, load_logging_config
from prefect.runtime import flow_run

from selftrain.config import RunConfig, RuntimeConfig
from selftrain.errors import UsageError
from selftrain.stage import Step
from selftrain.store.store import Store
from tasks import logs
from tasks.display import ChildLog, Progress, artifact_key, level_of
from tasks.notify import run_name
from tasks.prefect import PrefectRun
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


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("demo", "sft"), "demo-sft"),
        (("prod", "rm-1"), "prod-rm-1"),
        (("demo", "execute-sft-rl-part-2", "progress"), "demo-execute-sft-rl-part-2-progress"),
        (("Qwen2.5_Coder.", "report"), "qwen2-5-coder-report"),
    ],
)
def test_an_artifacts_key_begins_with_the_configs_name(names: tuple[str, ...], key: str):
    assert artifact_key(*names) == key
    assert ArtifactRequest(key=key).key == key, "Prefect's client takes it"


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"config": "CONFIG"}, "nightly"),
        ({"config": "CONFIG", "overrides": {"name": "other", "sft.epochs": 1}}, "other"),
        ({"config": "smoke"}, "smoke"),
        ({}, "demo"),
        ({"config": "runs/of/nobody.yaml", "overrides": {"name": "other"}}, "nobody"),
        ({"config": "smoke", "overrides": ["name"]}, "smoke"),
    ],
)
def test_a_flow_run_is_called_as_its_config_says(
    parameters: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = tmp_path / "file.yaml"
    config.write_text("name: nightly\n")
    given = parameters | ({"config": str(config)} if parameters.get("config") == "CONFIG" else {})
    monkeypatch.setitem(flow_run.FIELDS, "parameters", lambda: given)
    assert run_name().startswith(f"{name} · 20")


def test_dask_without_a_server_for_its_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    config = RunConfig(runtime=RuntimeConfig(dask="tcp://127.0.0.1:8786"))
    with pytest.raises(UsageError, match=r"runtime\.dask needs (a Prefect server|the package)"):
        PrefectRun(config, Store(str(tmp_path)))


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


@pytest.mark.parametrize("level", [logging.INFO, logging.CRITICAL])
def test_progress_is_shown_once_with_its_time(
    kept: Any, level: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """On the console, if that shows the log as under a worker, or by the stage itself, as with `selftrain run`."""
    console = Kept()
    console.setLevel(level)
    monkeypatch.setattr(logging.getLogger(), "handlers", [console])
    monkeypatch.setattr("tasks.display.create_progress_artifact", lambda *_, **__: None)
    logger, rows = kept
    Progress("demo", Step(None, "sft", "sft", None, {}, None), logger)(4, 4, "steps")  # type: ignore[arg-type]
    assert [text.split() for _, text in rows] == [["sft", "4/4", "steps"]]
    printed = capsys.readouterr().err
    if level == logging.INFO:
        assert printed == ""
    else:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  sft +4/4 steps\n", printed)


def test_a_json_line_has_the_whole_message_its_run_and_a_stack_trace(monkeypatch: pytest.MonkeyPatch):
    """By the settings that Prefect reads, which give its own formatter's arguments to ours."""
    for name, value in logs.SETTINGS.items():
        monkeypatch.setenv(name, value)
    config = load_logging_config(DEFAULT_LOGGING_SETTINGS_PATH)
    assert config["handlers"]["console"]["formatter"] == "json"
    made = logging.config.DictConfigurator(config).configure_formatter(config["formatters"]["json"])
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "%d \u00b7 %s\n", (1, "\ud800"), sys.exc_info())
    record.flow_run_name, record.flow_run_id = "nightly", None
    line = made.format(record)
    assert "\n" not in line
    line.encode()
    row = json.loads(line)
    assert row["message"] == "1 \u00b7 \ud800\n"
    assert row["trace"].endswith("ValueError: two\nlines")
    assert {name: row[name] for name in row if name not in ("time", "message", "trace")} == {
        "level": "ERROR", "logger": "x", "flow_run_name": "nightly",
    }  # fmt: skip


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
    chosen = {"key": {"any_": ["smoke-sft-progress"]}, "task_run_id": {"any_": ours}}
    shown = server.post("artifacts/filter", artifacts=chosen)
    assert {artifact["type"] for artifact in shown} == {"progress"}
    assert [a for a in shown if a["data"] == 100 and "steps" in a["description"]]
