"""Runs one deployed run while everything around it fails, and compares its result with that of an undisturbed run.

    python -m tests.chaos --backend docker --store s3

The failures, each at another stage: SIGKILL of the flow's process, a training child process, a worker, a sandbox's container,
the Docker daemon, and a worker together with the flow; the Prefect server and the S3 server are killed and restarted; the
Prefect server's database is locked; a fifth of all S3 requests fails and a fifth is slow; the disk fills up; a bit of a stored
file is flipped. Only servers and workers are started again. The run must end as Completed, with the records digest of every
stage and the metrics of an undisturbed run. No verdict may show a fault, and no process, container, lock, lease, temporary file
or unfinished build may remain. Needs root (a small file system is mounted, a Docker daemon started).
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
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
from tests.kill_at_random import finish
from tests.servers import S3Server, flaky, free_ports, start_weed, wait_for_weed

LONGEST = 900
"""Seconds that the end may take before the test gives up; many times what an idle machine needs."""
SECONDS_TO_END = 60
DISK_MIB = 256
THEIRS = re.compile(r"prefect$|^prefect-workspace-|^runner_storage$|^torchinductor_")
"""Folders that killed Prefect workers leave, and a cache of PyTorch's."""
ENDS = ("Completed", "Failed", "Cancelled")


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

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End this process alone: what it started is left to itself."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:  # a worker waits for the runs that it has just taken
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
    """A Prefect server, a worker and a store, all in `folder`, and the one run.

    silent  seconds without a sign of life after which the run is started again: more than the 30 s between two of them
            and a restart of the Prefect server, else that starts a living run again, which does no harm but takes its time
    daemon  where the sandbox's containers run; None: backend process
    s3      where the store is; None: on the disk. `bad`: the connection through which the run reaches it
    """

    folder: Path
    silent: int = 60
    daemon: Daemon | None = None
    s3: Weed | None = None
    bad: str = ""
    began: float = field(default_factory=time.monotonic)
    run: str = ""

    def __post_init__(self) -> None:
        self.disk = self.folder / "disk"
        self.scratch = self.folder / "tmp"
        for path in (self.disk, self.scratch, self.folder / "home"):
            path.mkdir(parents=True, exist_ok=True)
        self.scratch.chmod(0o711)
        port = str(free_ports(1)[0])
        self.api = PrefectServer(f"http://127.0.0.1:{port}/api")
        self.environment = (
            dict(os.environ)
            | {
                "CHAOS": str(self.folder),
                "PYTHONPATH": str(ROOT),
                "PREFECT_API_URL": self.api.url,
                "PREFECT_HOME": str(self.folder / "home"),
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
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

    def states(self) -> list[str]:
        """The names of the states that the run has had."""
        return [state["name"] for state in self.get(f"flow_run_states/?flow_run_id={self.run}")]

    def state(self) -> str:
        """The run's present state."""
        return str(self.get(f"flow_runs/{self.run}")["state_name"])

    def building(self, step: str) -> bool:
        """Whether the artifact of the run's step is being made. Steps work beside each other, so others may be too."""
        try:
            run = json.loads((self.folder / "out" / "run.json").read_text())
        except FileNotFoundError:
            return False
        if step not in run["stages"]:
            return False
        ref = ArtifactRef(**run["stages"][step])
        if self.store.manifest(ref) is not None:
            raise SystemExit(f"{step} was over before it could be disturbed")
        return (self.local / "work" / ref.stage / ref.key).exists()

    def wait_for_step(self, step: str) -> None:
        """Wait until it is building. Raises SystemExit where the run ends before."""
        looked = time.monotonic()
        while not self.building(step):
            if time.monotonic() > looked + 3:
                looked = time.monotonic()
                if self.state() in ENDS:
                    raise SystemExit(f"the run ended before {step}\n{self.worker.log.read_text()[-4000:]}")
            time.sleep(0.05)

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
        for pid in self.wait(lambda: self.processes(*words), f"a process with {words}", 60, pause=0.02):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


FLOW = ("-m prefect.engine",)


def kill_training_child(world: World) -> None:
    world.kill("selftrain.training")


def kill_flow(world: World) -> None:
    world.kill(*FLOW)


def kill_worker(world: World) -> None:
    world.worker.kill()
    world.worker.start()


def kill_worker_and_flow(world: World) -> None:
    world.worker.kill()
    world.kill(*FLOW)
    world.worker.start()


def kill_sandbox(world: World) -> None:
    if world.daemon is None:
        world.kill("sandbox.runner")
        return
    for container in world.wait(world.daemon.running, "a container", 60, pause=0.02):
        container.kill()


def restart_daemon(world: World) -> None:
    assert world.daemon is not None
    world.wait(world.daemon.running, "a container", 60, pause=0.02)
    world.daemon.kill()
    time.sleep(3)
    world.daemon.start()


def restart_s3(world: World) -> None:
    assert world.s3 is not None
    world.s3.kill()
    time.sleep(3)
    world.s3.start()


def restart_server(world: World) -> None:
    world.server.kill()
    time.sleep(3)
    world.server.start()
    world.wait(world.answers, "the server")


def lock_database(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.folder / "home" / "prefect.db", timeout=60)) as database:
        database.execute("BEGIN IMMEDIATE")
        time.sleep(6)
        database.rollback()


def fill_disk(world: World) -> None:
    ballast = world.disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    time.sleep(8)
    ballast.unlink()


def flip_bit(world: World) -> None:
    """In the pairs of round 1, which round 2 reads, and in this machine's copy of them."""
    (manifest,) = world.store.manifests("mine")
    where = f"mine/{manifest['key']}/{manifest['attempt']}/pairs.parquet"
    stored = f"{world.store.root}/{where}"
    content = bytearray(world.store.files.read(stored))
    content[len(content) // 2] ^= 1
    world.store.files.write(stored, bytes(content))
    if not world.store.is_local:
        (world.local / "copies" / where).write_bytes(content)


Event = tuple[str, str, Callable[[World], None]]
EVENTS: tuple[Event, ...] = (
    ("sft", "kill -9 of the training child", kill_training_child),
    ("sample-sft-rl", "kill -9 of the flow's process", kill_flow),
    ("execute-sft-rl", "kill -9 of the sandbox", kill_sandbox),
    ("rm-1", "the Prefect server's database is locked for 6 s", lock_database),
    ("rm-1", "kill -9 of the worker, then another worker", kill_worker),
    ("ppo-1", "the S3 server is killed, and back 3 s later", restart_s3),
    ("sample-ppo-1-rl", "a bit of round 1's pairs is flipped", flip_bit),
    ("sample-ppo-1-rl", "the disk is full for 8 s", fill_disk),
    ("execute-ppo-1-rl", "kill -9 of the Docker daemon, back 3 s later", restart_daemon),
    ("rm-2", "kill -9 of the worker and the flow at once, then another worker", kill_worker_and_flow),
    # The last: a new server holds back the events of runs that it has not seen begin, for 15 minutes.
    ("ppo-2", "the Prefect server is killed, and back 3 s later", restart_server),
)


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system of its own, so that filling it up fills nothing else."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def disturbed(world: World, events: tuple[Event, ...]) -> None:
    """Carry out the run with its `events`. Raises SystemExit where it does not end Completed."""
    world.server.start()
    world.wait(world.answers, "the server")
    automate = [sys.executable, "infra/automation.py", "--silent", str(world.silent)]
    for command in ([sys.executable, "infra/deploy.py"], automate):
        subprocess.run(command, cwd=ROOT, env=world.environment, check=True, capture_output=True)
    world.worker.start()
    world.say("server, deployments and worker are there")
    deployment = world.get("deployments/name/iterative-selftrain/prod")["id"]
    backend = "docker" if world.daemon else "process"
    overrides = {"store": world.store.url, "runtime.backend": backend}
    parameters = {"config": "smoke", "overrides": overrides, "out": str(world.folder / "out")}
    world.run = world.api.post(f"deployments/{deployment}/create_flow_run", parameters=parameters)["id"]
    for step, what, happen in events:
        world.wait_for_step(step)
        happen(world)
        world.say(f"{step}: {what}")
    world.wait(lambda: world.state() in ENDS, "the end", pause=1)
    world.say(f"the run's states: {', '.join(world.states())}")
    if world.state() != "Completed":
        raise SystemExit(world.worker.log.read_text()[-6000:])


def left(world: World) -> list[str]:
    """What is left behind, the server aside."""
    world.worker.kill(signal.SIGTERM)
    assert world.server.process is not None
    deadline = time.monotonic() + SECONDS_TO_END
    while True:
        found = [f"process {pid}" for pid in world.processes() if pid != world.server.process.pid]
        found += [f"unfinished build {path}" for path in world.local.glob("work/*/*")]
        found += [f"held lock {path}" for path in world.local.glob("locks/*") if locked(path)]
        temporary = [path for path in world.scratch.iterdir() if not THEIRS.search(path.name)]
        found += [f"temporary file {path}" for path in (*temporary, *world.disk.rglob("*.part"))]
        found += [
            f"lease {path}" for path in world.store.files.listing(world.store.root) if "/lease/" in path
        ]
        if world.daemon:
            found += [f"container {container.short_id}" for container in world.daemon.containers()]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def locked(path: Path) -> bool:
    """Whether somebody holds the lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def outcome(folder: Path, store: Store) -> dict[str, Any]:
    """Per stage its records digest, the report's metrics, and the verdicts that tell of the sandbox, not of a program."""
    run = json.loads((folder / "out" / "run.json").read_text())
    manifests = {name: store.manifest(ArtifactRef(**ref)) or {} for name, ref in run["stages"].items()}
    report = json.loads((folder / "out" / "report.json").read_text())
    verdicts = [manifest["metrics"].get("verdicts", {}) for manifest in manifests.values()]
    return {
        **{name: manifest["records_digest"] for name, manifest in manifests.items()},
        "report's pools": report["pools"],
        "report's comparisons": report["comparisons"],
        "verdicts from faults": sum(found.get("sandbox_error", 0) for found in verdicts),
    }


def compare(world: World, undisturbed: Path, events: tuple[Event, ...] = EVENTS) -> int:
    """The run with its events against a finished one in folder `undisturbed`; 0 where nothing differs and nothing is left."""
    expected = outcome(undisturbed, Store(str(undisturbed / "store")))
    assert expected["verdicts from faults"] == 0
    with small_disk(world.disk):
        try:
            disturbed(world, events)
            remains = left(world)
            found = outcome(world.folder, world.store)
        finally:
            world.worker.kill()
            for pid in world.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            world.server.kill()
    different = [name for name in expected if expected[name] != found.get(name)]
    for name in expected:
        print(f"{'DIFFERENT' if name in different else 'same':<10} {name}")
    for what in remains:
        print(f"LEFT       {what}")
    print(
        f"{len(expected) - len(different)} of {len(expected)} results are the same, {len(remains)} things are left"
    )
    return 1 if different or remains else 0


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
        yield World(folder, silent, daemon, s3, bad)


def possible(world: World, events: tuple[Event, ...] = EVENTS) -> tuple[Event, ...]:
    """Those of the events for which the world has the servers."""
    missing = {restart_daemon} if world.daemon is None else set()
    missing |= {restart_s3} if world.s3 is None else set()
    return tuple(event for event in events if event[2] not in missing)


def main() -> int:
    """Run it; 0 if the disturbed run ended as the undisturbed one."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--backend", choices=("process", "docker"), default="process")
    options.add_argument("--store", choices=("local", "s3"), default="local")
    options.add_argument("--silent", type=int, default=60, help="seconds of silence that tell a dead run")
    options.add_argument("--undisturbed", type=Path, help="folder of a finished run of smoke (store/, out/)")
    options.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o711)  # programs run as another user
        folder = asked.folder or Path(scratch)
        undisturbed = asked.undisturbed or folder / "undisturbed"
        if asked.undisturbed is None:
            finish(undisturbed)
        with made(folder / "disturbed", asked.backend, asked.store, asked.silent) as world:
            return compare(world, undisturbed, possible(world))


if __name__ == "__main__":
    sys.exit(main())
