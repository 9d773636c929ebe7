"""A Prefect server, a worker and a store for one deployed run, each of which a test can kill and start again.

See `tests.chaos` and `tests/flows/test_outage.py`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tests.command import ROOT, PrefectServer
from tests.daemon import Daemon, own_daemon
from tests.servers import S3Server, flaky, free_ports, start_weed, wait_for_weed
from tests.webhook import Webhook, listening

LONGEST = 900
"""Seconds that the end may take before the test gives up; many times what an idle machine needs."""
ENDS = ("Completed", "Failed", "Cancelled")
FLOW = ("-m prefect.engine",)
"""Words in the command line of a flow's process."""
RENEWAL_SECONDS = 3
"""Seconds between two renewals of the lease of a deployment's slot here; Prefect's 225 s are no setting."""
RENEWS_SOONER = f"""
import sys
if "prefect.engine" in sys.orig_argv:
    from prefect.concurrency import _leases
    _leases._RENEWAL_FRACTION = {RENEWAL_SECONDS} / 300
"""


@dataclass
class Service:
    """A command that is started, killed and started again."""

    command: list[str]
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what it prints goes on at the end of its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """SIGKILL for this process alone: what it started is left to itself."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Weed:
    """A SeaweedFS server with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir(parents=True)
        self.folder, self.ports = folder, free_ports(8)
        self.server = S3Server(f"http://127.0.0.1:{self.ports[6]}")

    def start(self) -> None:
        """Start it and wait until it has its bucket."""
        self.process = start_weed(self.folder, self.ports)
        wait_for_weed(self.server, self.process, self.folder / "weed.log")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


@dataclass
class World:
    """A Prefect server, a worker and a store, all in `folder`, and a run: the newest.

    silent  seconds without a sign of life after which the run is started again: more than the 30 s between two of them
            and a restart of the Prefect server, else that starts a living run again
    daemon  where the sandbox's containers run; None: backend process
    s3      where the store is; None: on the disk. `bad`: the connection through which the run reaches it
    failed  another run, which has failed; `ended`: the states that it had had by then
    damaged the attempt of an artifact in the store of which a bit was flipped
    """

    folder: Path
    webhook: Webhook
    silent: int = 60
    daemon: Daemon | None = None
    s3: Weed | None = None
    bad: str = ""
    began: float = field(default_factory=time.monotonic)
    run: str = ""
    failed: str = ""
    ended: list[str] = field(default_factory=list)
    damaged: str = ""

    def __post_init__(self) -> None:
        self.disk = self.folder / "disk"
        self.scratch = self.folder / "tmp"
        self.out = self.folder / "out"
        for path in (self.disk, self.scratch, self.folder / "home"):
            path.mkdir(parents=True, exist_ok=True)
        self.scratch.chmod(0o711)
        (self.folder / "sitecustomize.py").write_text(RENEWS_SOONER)
        port = str(free_ports(1)[0])
        self.api = PrefectServer(f"http://127.0.0.1:{port}/api")
        self.environment = (
            dict(os.environ)
            | {
                "CHAOS": str(self.folder),
                "PYTHONPATH": f"{self.folder}:{ROOT}",
                "PREFECT_API_URL": self.api.url,
                "PREFECT_HOME": str(self.folder / "home"),
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "SELFTRAIN_WEBHOOK_URL": self.webhook.url,
                "DO_NOT_TRACK": "1",
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "TMPDIR": str(self.scratch),
                "XDG_CACHE_HOME": str(self.disk / "cache"),
            }
            | ({"DOCKER_HOST": self.daemon.url} if self.daemon else {})
            | (self.s3.server.environment | {"AWS_ENDPOINT_URL": self.bad} if self.s3 else {})
        )
        if self.s3:
            self.store = Store(
                self.s3.server.store("chaos"), self.disk / "cache/selftrain/store", self.s3.server.options
            )
        else:
            self.store = Store(str(self.disk / "store"))
        self.local = self.store.local
        serve = [
            sys.executable,
            "-m",
            *f"prefect server start --no-ui --host 127.0.0.1 --port {port}".split(),
        ]
        work = [sys.executable, "-m", "flows.worker", "--type", "process"]
        self.server = Service(serve, self.folder / "server.log", self.environment)
        self.worker = Service(work, self.folder / "worker.log", self.environment)

    def say(self, what: str) -> None:
        """Tell the time and what happens."""
        print(f"{time.monotonic() - self.began:6.1f} s  {what}", flush=True)

    def wait(self, true: Callable[[], Any], what: str, seconds: float = LONGEST, pause: float = 0.05) -> Any:
        """Wait until `true`, and return it. Raises SystemExit with the worker's last words after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (value := true()):
            if time.monotonic() > deadline:
                tail = self.worker.log.read_text()[-4000:] if self.worker.log.exists() else ""
                raise SystemExit(f"{what} did not come in {seconds:.0f} s\n{tail}")
            time.sleep(pause)
        return value

    def answers(self) -> bool:
        """Whether the Prefect server does."""
        with contextlib.suppress(OSError):
            self.api.post("flow_runs/count")
            return True
        return False

    def get(self, path: str) -> Any:
        """The JSON answer of the Prefect server."""
        return self.api.send("GET", path)

    def start_run(self, deployment: str, **parameters: Any) -> None:
        """Let the worker start a run of this deployment."""
        id = self.get(f"deployments/name/{deployment}")["id"]
        self.run = self.api.post(f"deployments/{id}/create_flow_run", parameters=parameters)["id"]

    def state(self) -> str:
        """The run's present state."""
        return str(self.get(f"flow_runs/{self.run}")["state_name"])

    def reached(self, step: str) -> bool:
        """Whether the artifact of the run's step is being made, or made: a fast run may be past a short step, which is no fault."""
        try:
            run = json.loads((self.out / "run.json").read_text())
        except FileNotFoundError:
            return False
        if step not in run["stages"]:
            return False
        ref = ArtifactRef(**run["stages"][step])
        return (self.local / "work" / ref.stage / ref.key).exists() or self.store.manifest(ref) is not None

    def wait_for_step(self, step: str) -> None:
        """Wait until the run has reached it. Raises SystemExit where the run ends before."""
        looked = time.monotonic()
        while not self.reached(step):
            if time.monotonic() > looked + 3:
                looked = time.monotonic()
                if self.state() in ENDS:
                    raise SystemExit(f"the run ended before {step}\n{self.worker.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def outlast_renewals(self, leases: int = 1) -> None:
        """Wait until so many leases of slots have been renewed twice. Raises SystemExit where the flow's process ends before."""
        flow = self.processes(*FLOW)
        expirations: dict[str, set[str]] = {}

        def renewed() -> bool:
            for lease in (self.folder / "home" / "concurrency_leases").glob("*-*.json"):
                with contextlib.suppress(FileNotFoundError):
                    expirations.setdefault(lease.name, set()).add(json.loads(lease.read_text())["expiration"])
            if self.processes(*FLOW) != flow:
                raise SystemExit(
                    f"the run did not outlast two renewals\n{self.worker.log.read_text()[-4000:]}"
                )
            return sum(len(found) > 2 for found in expirations.values()) >= leases

        self.wait(renewed, "two renewals of the slots' leases", 240, pause=0.5)

    def processes(self, *words: str) -> list[int]:
        """Living processes of this world whose command line has all `words`."""
        mark = f"CHAOS={self.folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if mark in (path / "environ").read_bytes().split(b"\0") and all(w in command for w in words):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def kill(self, *words: str) -> None:
        """SIGKILL for every such process, of which there must be one."""
        for pid in self.wait(lambda: self.processes(*words), f"a process with {words}", 240, pause=0.02):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def made(folder: Path, backend: str, store: str, silent: int = 60) -> Iterator[World]:
    """A world with the servers that `backend` (process, docker) and `store` (local, s3) need."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        daemon = stack.enter_context(own_daemon(folder / "docker")) if backend == "docker" else None
        s3 = Weed(folder / "s3") if store == "s3" else None
        bad = ""
        if s3:
            s3.start()
            stack.callback(s3.kill)
            bad = stack.enter_context(flaky(s3.server.url)).url
        yield World(folder, stack.enter_context(listening()), silent, daemon, s3, bad)
