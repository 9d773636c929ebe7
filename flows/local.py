"""Runs the flow in this process, against the server of PREFECT_API_URL or an embedded one."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from flows import server
from sandbox.errors import SandboxError
from selftrain.errors import RunError, SelftrainError
from selftrain.launch.ending import ENDING

QUIET = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command line prints an error once
    "DO_NOT_TRACK": "1",
    # The server writes task states in batches, once a second; the Makefile explains why.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
"""Settings of Prefect for a run from the command line; variables that the environment sets already stay as they are."""


def run_here(
    config: str, overrides: dict[str, Any], rounds: int | None, out: str | None, champion: bool = False
) -> str:
    """Run the flow; returns its final table as text. Raises the flow's errors; for a wrong config, before a server starts."""
    from flows.session import open_run
    from selftrain.report.terminal import summary_table
    from selftrain.store.runfile import followed, link_of
    from tasks.run import Run

    run, _ = open_run(Run, config, overrides, rounds, out)
    if run.config.runtime.backend == "process":
        print(
            "runtime.backend `process` does not isolate programs: use it for the demo's own tiny models only",
            file=sys.stderr,
        )
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.raiseExceptions = False  # no tracebacks for log records that cannot reach the server
    ENDING.doing = "the start of Prefect's server"
    url = _connect()
    import httpx

    from flows.iterative_selftrain import iterative_selftrain

    # Prefect installs its own SIGTERM handler while a flow runs. It waits for the server, which may be gone: replace it.
    flow = iterative_selftrain.with_options(on_running=[lambda *_: ENDING.catch_again()])
    try:
        report = flow(config, overrides, rounds, out, champion)
    except httpx.HTTPError as error:
        if known(error) or not _gone(error, url):
            raise
        raise RunError(
            f"the Prefect server {url} does not answer any more: {type(error).__name__}: {error}; finished artifacts are kept: "
            "start the server, then run the same command to resume"
        ) from error
    folder = Path(report["folder"])
    where = Path(folder, "report.html").resolve()
    link = link_of(folder)
    shown = link if followed(link) == folder else folder
    decision = f"\n{report['champion']['text']}" if champion else ""
    return f"{summary_table(report)}\n\nreport: {where}\nreranker: selftrain rank {shown} --prompt FILE CANDIDATE...{decision}"


def _connect() -> str:
    """Connect to the server of PREFECT_API_URL, or start one that ends with this process; returns its URL."""
    started = time.monotonic()
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        print(
            "starting a Prefect server for this run (half a minute, more on a busy machine)", file=sys.stderr
        )
        server.start()
    try:
        with get_client(sync_client=True) as client:
            client.hello()
            url = client.api_url
    except (httpx.HTTPError, RuntimeError) as error:
        where = os.environ.get("PREFECT_API_URL") or "started here"
        raise RunError(
            f"the Prefect server {where} does not answer: {error}; start one with `make server` and set PREFECT_API_URL to "
            "its address, or unset that to have one started for each run"
        ) from error
    print(f"Prefect is ready after {time.monotonic() - started:.1f} s ({url})", file=sys.stderr)
    return str(url)


def known(error: BaseException) -> BaseException | None:
    """The first SelftrainError or SandboxError in the chain of causes of `error`; None if there is none."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, SelftrainError | SandboxError):
        seen = seen.__cause__ or seen.__context__
    return seen


def _gone(error: Any, url: str) -> bool:
    """Whether an error of httpx concerns a request to the server at `url`."""
    try:
        return str(error.request.url).startswith(url)
    except RuntimeError:  # the error names no request
        return True
