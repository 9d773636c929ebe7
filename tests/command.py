"""Helpers that start the real command line and a real Prefect server as child processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LONGEST = 1800
"""Seconds after which a child is taken to hang: these are many times what an idle machine needs."""


def selftrain(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """`selftrain ARGUMENTS`, finished, whatever its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )


@dataclass(frozen=True)
class Finished:
    """A finished run: its store, its folder, and what the command printed."""

    store: Path
    out: Path
    stdout: str
    stderr: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `selftrain run` was given, without the folder for the report."""
        return ("smoke", "--set", f"store={self.store}")

    @cached_property
    def report(self) -> dict[str, Any]:
        """Content of its report.json."""
        return json.loads((self.out / "report.json").read_text())

    @cached_property
    def stages(self) -> dict[str, dict[str, str]]:
        """Name of each stage, in order -> {"stage", "key"}."""
        return json.loads((self.out / "run.json").read_text())["stages"]

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest of the stage called `name`."""
        ref = self.stages[name]
        return json.loads((self.store / ref["stage"] / ref["key"] / "manifest.json").read_text())

    def folder(self, name: str) -> Path:
        """Where the files of the stage called `name` are."""
        ref = self.stages[name]
        return self.store / ref["stage"] / ref["key"] / self.manifest(name)["attempt"]


def run_smoke(folder: Path, *extra: str) -> Finished:
    """Run `configs/smoke.yaml` into `folder` until it is finished."""
    store, out = folder / "store", folder / "out"
    done = selftrain("run", "smoke", "--set", f"store={store}", "--out", str(out), *extra)
    assert done.returncode == 0, done.stderr[-6000:]
    return Finished(store, out, done.stdout, done.stderr)


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server; `pid`: its process, and its process group."""

    url: str
    pid: int = 0

    def post(self, path: str, **body: Any) -> Any:
        """The JSON answer of `POST url/path`."""
        return self.send("POST", path, body)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer of `METHOD url/path`, None where it is empty.

        Tries again where the server is busy, as Prefect's own client does: SQLite lets one write at a time.
        """
        request = urllib.request.Request(
            f"{self.url}/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        deadline = time.monotonic() + 60
        while True:
            try:  # on SQLite an answer may wait for a lock for 60 s
                with urllib.request.urlopen(request, timeout=120) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def task_runs(self, flow_run: str) -> list[dict[str, Any]]:
        """Those of a flow run that has ended. The server writes their states down a moment after they are reached, so all
        have to have ended, and nothing has to have changed for a while."""
        deadline, before = time.monotonic() + 60, None
        while True:
            tasks: list[dict[str, Any]] = self.post(
                "task_runs/filter", flow_runs={"id": {"any_": [flow_run]}}
            )
            states = {task["id"]: task["state_type"] for task in tasks}
            ended = not {"PENDING", "RUNNING", "SCHEDULED"} & set(states.values())
            if (ended and states == before) or time.monotonic() > deadline:
                return tasks
            before = states
            time.sleep(2)

    def states(self, flow_run: Any) -> list[str]:
        """The names of the states that it has had."""
        rows = self.send("GET", f"flow_run_states/?flow_run_id={flow_run}")
        return [row["name"] for row in sorted(rows, key=lambda row: row["timestamp"])]

    def beat(self, *flow_runs: Any, ago: float = 0) -> None:
        """Send a heartbeat of each, which has the tag `selftrain`, as of `ago` seconds ago."""
        heartbeats = [
            {
                "id": str(uuid.uuid4()),
                "event": "prefect.flow-run.heartbeat",
                "occurred": (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(),
                "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
                "related": [{"prefect.resource.id": "prefect.tag.selftrain", "prefect.resource.role": "tag"}],
            }
            for run in flow_runs
        ]
        self.send("POST", "events", heartbeats)

    def last_completed(self) -> dict[str, Any]:
        """The newest flow run that has ended well; others may be scheduled after it."""
        ended = {"state": {"type": {"any_": ["COMPLETED"]}}}
        runs = self.post("flow_runs/filter", flow_runs=ended, sort="START_TIME_DESC", limit=1)
        return dict(runs[0])


@contextmanager
def prefect_server(home: Path, **environment: str) -> Iterator[PrefectServer]:
    """A Prefect server of its own on a free port, with its UI and its database in `home`; it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}/api"
    settings = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_UI_API_URL": url} | environment
    settings.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=settings, stdout=log, stderr=log, start_new_session=True)
    try:
        server = PrefectServer(url, process.pid)
        _wait_for(server, process, home / "server.log")
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(server: PrefectServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the Prefect server did not start:\n{log.read_text()[-3000:]}")


def run_ranks(
    module: str, *arguments: object, ranks: int = 1, deepspeed: bool = False, seconds: int = 900
) -> None:
    """Run `python -m module` on CPU, under torchrun where there are several ranks or DeepSpeed is to train."""
    command = [sys.executable, "-m"]
    if ranks > 1 or deepspeed:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "ACCELERATE_USE_CPU": "true",
    }
    if deepspeed:
        del environment["ACCELERATE_USE_CPU"]  # accelerate would take DDP in its stead
    with tempfile.TemporaryDirectory() as scratch:  # torchrun leaves folders in TMPDIR
        done = subprocess.run(
            [*command, module, *map(str, arguments)],
            env=environment | {"TMPDIR": scratch},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def processes(module: str, folder: Path) -> list[int]:
    """Processes of that module, or of one in that package, which have to do with `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if module.encode() in command and str(folder).encode() in command:
            found.append(int(path.parent.name))
    return found


def wait_until(
    true: Callable[[], Any], what: str, told: Callable[[], Any] = str, seconds: float = 600
) -> None:
    """Wait until `true()`; fail with what `told` tells where that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s: {told()}"
        time.sleep(0.05)


def children(pid: int) -> list[str]:
    """Process ids of the children of `pid`."""
    return [pid for path in Path(f"/proc/{pid}/task").glob("*/children") for pid in path.read_text().split()]


def alive(pid: int | str) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
