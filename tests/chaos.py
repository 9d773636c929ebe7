"""One run, started by a worker from its deployment, and everything that can go wrong around it.

    python -m tests.chaos --backend docker

The flow's process, a training child, a worker, a sandbox's container and a worker together with the flow are killed with
SIGKILL, the Prefect server is restarted, the disk fills up, and a bit of a stored file is flipped, each at a stage of its
own. Nobody starts anything again but a worker: the run must end Completed with the records digest of every stage and the
metrics of an undisturbed run, without a verdict that tells of a fault, and leave no process, container, lock, temporary file
or unfinished build behind.
"""

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.command import ROOT, PrefectServer
from tests.kill_at_random import finish, outcome

LONGEST = 900
"""Seconds that anything may take before the test gives up; many times what an idle machine needs."""
SECONDS_TO_END = 60
DISK_MIB = 256


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
            self.process.wait()


@dataclass
class World:
    """A Prefect server, a worker and a store, all in `folder`, and the one run."""

    folder: Path
    backend: str = "process"
    silent: int = 40
    environment: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    run: str = ""
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk = self.folder / "disk"
        self.scratch = self.folder / "tmp"
        for path in (self.disk, self.scratch, self.folder / "home"):
            path.mkdir(parents=True, exist_ok=True)
        self.scratch.chmod(0o711)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.api = PrefectServer(f"http://127.0.0.1:{port}/api")
        self.environment = (
            os.environ
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
                "BIN": str(Path(sys.executable).parent),
            }
            | self.environment
        )
        prefect = [sys.executable, "-m", "prefect"]
        serve = [*prefect, "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", port]
        work = [*prefect, "worker", "start", "--pool", "selftrain", "--type", "process"]
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
        with urllib.request.urlopen(f"{self.api.url}/{path}", timeout=60) as answer:
            return json.load(answer)

    def states(self) -> list[str]:
        """The names of the states that the run has had."""
        return [state["name"] for state in self.get(f"flow_run_states/?flow_run_id={self.run}")]

    def state(self) -> str:
        """The run's present state."""
        return str(self.get(f"flow_runs/{self.run}")["state_name"])

    def building(self, stage: str, nth: int) -> bool:
        """Whether the `nth` artifact of `stage` is being made."""
        store = self.disk / "store"
        made = len(list(store.glob(f"{stage}/*/manifest.json")))
        if made > nth:
            raise SystemExit(f"{stage} {nth} was over before it could be disturbed")
        return made == nth and any((store / ".local" / "work" / stage).glob("*"))

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
    world.kill("-m selftrain.training")


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
    if world.backend == "process":
        world.kill("sandbox.runner")
        return
    from sandbox.backends import docker

    before = set(world.seen)
    own = world.wait(lambda: [c for c in containers() if c not in before], "a container", 60, pause=0.02)
    for container in own:
        docker.connect().containers.get(container).kill()


def restart_server(world: World) -> None:
    world.server.kill()
    time.sleep(10)
    world.server.start()
    world.wait(world.answers, "the server")


def fill_disk(world: World) -> None:
    ballast = world.disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    time.sleep(8)
    ballast.unlink()


def flip_bit(world: World) -> None:
    """In the pairs of round 1, which round 2 reads."""
    (path,) = (world.disk / "store" / "mine").glob("*/*/pairs.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


Event = tuple[str, int, str, Callable[[World], None]]
EVENTS: tuple[Event, ...] = (
    ("sft", 0, "kill -9 of the training child", kill_training_child),
    ("sample", 0, "kill -9 of the flow's process", kill_flow),
    ("execute", 0, "kill -9 of the sandbox", kill_sandbox),
    ("train_reward", 0, "kill -9 of the worker, then another worker", kill_worker),
    ("ppo", 0, "the Prefect server is killed, and back 10 s later", restart_server),
    ("sample", 1, "a bit of round 1's pairs is flipped", flip_bit),
    ("sample", 1, "the disk is full for 8 s", fill_disk),
    ("train_reward", 1, "kill -9 of the worker and the flow at once, then another worker", kill_worker_and_flow),
)  # fmt: skip


def containers() -> list[str]:
    """Ids of all containers of sandboxes."""
    from sandbox.backends import docker

    return [c.id for c in docker.connect().containers.list(all=True, filters={"label": docker.LABEL})]


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
    world.seen = containers() if world.backend == "docker" else []
    world.server.start()
    world.wait(world.answers, "the server")
    automate = [sys.executable, "infra/automation.py", "--silent", str(world.silent)]
    for command in (["bash", "infra/deploy.sh"], automate):
        subprocess.run(command, cwd=ROOT, env=world.environment, check=True, capture_output=True)
    world.worker.start()
    world.say("server, deployments and worker are there")
    deployment = world.get("deployments/name/iterative-selftrain/prod")["id"]
    overrides = {"store": str(world.disk / "store"), "runtime.backend": world.backend}
    parameters = {"config": "smoke", "overrides": overrides, "out": str(world.folder / "out")}
    world.run = world.api.post(f"deployments/{deployment}/create_flow_run", parameters=parameters)["id"]
    for stage, nth, what, happen in events:
        world.wait(lambda: world.building(stage, nth), f"{stage} {nth}")  # noqa: B023
        happen(world)
        world.say(f"{stage} {nth}: {what}")
    world.wait(lambda: world.state() in ("Completed", "Failed", "Cancelled"), "the end", pause=1)
    world.say(f"the run's states: {', '.join(world.states())}")
    if world.state() != "Completed":
        raise SystemExit(world.worker.log.read_text()[-6000:])


def left(world: World) -> list[str]:
    """What is left behind, the server aside."""
    world.worker.kill(signal.SIGTERM)
    deadline = time.monotonic() + SECONDS_TO_END
    found: list[str] = []
    while time.monotonic() < deadline:
        store = world.disk / "store"
        found = [f"process {pid}" for pid in world.processes() if pid != world.server.process.pid]
        found += [f"unfinished build {path}" for path in store.glob(".local/work/*/*")]
        found += [f"held lock {path}" for path in store.glob(".local/locks/*") if locked(path)]
        found += [f"temporary file {path}" for path in world.scratch.iterdir()]
        found += [f"temporary file {path}" for path in store.rglob("*.part")]
        if world.backend == "docker":
            found += [f"container {id}" for id in containers() if id not in world.seen]
        if not found:
            break
        time.sleep(0.2)
    return found


def locked(path: Path) -> bool:
    """Whether somebody holds the lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def faults(world: World) -> dict[str, int]:
    """How many verdicts of which kind the run has that tell of the sandbox, not of a program."""
    counts: dict[str, int] = {}
    for path in (world.disk / "store" / "execute").glob("*/manifest.json"):
        for verdict, count in json.loads(path.read_text())["metrics"]["verdicts"].items():
            if verdict == "sandbox_error":
                counts[verdict] = counts.get(verdict, 0) + count
    return counts


def compare(world: World, undisturbed: Path, events: tuple[Event, ...] = EVENTS) -> int:
    """The run with its events against a finished one in folder `undisturbed`; 0 where nothing differs and nothing is left."""
    with small_disk(world.disk):
        try:
            disturbed(world, events)
            remains = left(world)
            expected, found = outcome(undisturbed), outcome(world.folder, world.disk / "store")
            errors = faults(world)
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
    print(f"{len(expected) - len(different)} of {len(expected)} results are the same; verdicts from faults: {errors or 'none'}")
    return 1 if different or remains or errors else 0


def main() -> int:
    """Run it; 0 if the disturbed run ended as the undisturbed one."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--backend", choices=("process", "docker"), default="process")
    options.add_argument("--silent", type=int, default=40, help="seconds of silence that tell a dead run")
    options.add_argument("--undisturbed", type=Path, help="folder of a finished run of smoke (store/, out/)")
    options.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        if asked.undisturbed is None:
            finish(folder / "undisturbed")
        return compare(World(folder / "disturbed", asked.backend, asked.silent), asked.undisturbed or folder / "undisturbed")


if __name__ == "__main__":
    sys.exit(main())
