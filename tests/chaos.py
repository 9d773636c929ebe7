"""Runs one deployed run while everything around it fails, and compares its result with that of an undisturbed run.

    python -m tests.chaos --backend docker --store s3

The failures, each at another stage: SIGKILL of the flow's process, a training child process, a worker, a sandbox's container,
the Docker daemon, and a worker together with the flow; the Prefect server and the S3 server are killed and restarted; the
Prefect server's database is locked; a fifth of all S3 requests fails and a fifth is slow; the disk fills up; a bit of a stored
file is flipped; another run fails, and a heartbeat of it arrives later. Only servers and workers are started again. The run must end
as Completed, with the records digest of every stage and the metrics of an undisturbed run. It must keep the slot of its
deployment over two renewals of the lease after the server's restart. The run that failed must stay so, and tell the webhook
once. No verdict may show a fault. At last the Prefect server is killed for good while another run works, which must end within 30 s
of SIGTERM. No process, container, lock, lease, slot, temporary file or unfinished build may remain. Needs root (a small file
system is mounted, a Docker daemon started).
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient

from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tests.command import ROOT
from tests.kill_at_random import finish
from tests.world import ENDS, FLOW, LONGEST, World, made

sys.path.insert(0, str(ROOT / "infra"))
from automation import make_automations

SECONDS_TO_END = 60
SECONDS_WITHOUT_SERVER = 30
"""From SIGTERM to the end of a run whose server is gone."""
DISK_MIB = 256
THEIRS = re.compile(r"prefect$|^prefect-workspace-|^runner_storage$|^torchinductor_")
"""Folders that killed Prefect workers leave, and a cache of PyTorch's."""


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
    for container in world.wait(world.daemon.running, "a container", 240, pause=0.02):
        container.kill()


def restart_daemon(world: World) -> None:
    assert world.daemon is not None
    world.wait(world.daemon.running, "a container", 240, pause=0.02)
    world.daemon.kill()
    time.sleep(3)
    world.daemon.start()


def restart_s3(world: World) -> None:
    assert world.s3 is not None
    world.s3.kill()
    time.sleep(3)
    world.s3.start()


def fail_another(world: World) -> None:
    """While the run is dead, and the slot of its deployment free."""
    world.wait(lambda: world.state() == "Crashed", "the report of the kill", 120)
    run = world.run
    start_smoke(world, **{"sft.epoch": 2})  # a typo
    world.wait(lambda: world.state() in ENDS, "the end of the run that fails")
    world.run, world.failed = run, world.run


def beat_late(world: World) -> None:
    """What may come of it comes `silent` seconds later: for as long the run is dead once more, when worker and flow are killed."""
    world.ended = world.api.states(world.failed)
    world.api.beat(world.failed)


def restart_server(world: World) -> None:
    """The run is held back until the lease of its slot, which the new server has to know, has been renewed twice."""
    training = world.wait(lambda: world.processes("selftrain.training"), "a training child", 240, pause=0.02)
    for pid in training:
        os.kill(pid, signal.SIGSTOP)
    automate(world, LONGEST)  # its heartbeats are lost while the server is away: it would be taken for dead
    world.server.kill()
    world.server.start()
    world.wait(world.answers, "the server")
    world.outlast_renewals()
    for pid in training:
        os.kill(pid, signal.SIGCONT)


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
    world.damaged = manifest["attempt"]
    where = f"mine/{manifest['key']}/{world.damaged}/pairs.parquet"
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
    ("sample-sft-rl", "another run fails, by a typo in its settings", fail_another),
    ("execute-sft-rl", "kill -9 of the sandbox", kill_sandbox),
    ("rm-1", "a heartbeat of the run that failed arrives", beat_late),
    ("rm-1", "the Prefect server's database is locked for 6 s", lock_database),
    ("rm-1", "kill -9 of the worker, then another worker", kill_worker),
    ("ppo-1", "a bit of round 1's pairs is flipped", flip_bit),  # long before round 2 reads them
    ("ppo-1", "the S3 server is killed, and back 3 s later", restart_s3),
    ("sample-ppo-1-rl", "the disk is full for 8 s", fill_disk),
    ("execute-ppo-1-rl", "kill -9 of the Docker daemon, back 3 s later", restart_daemon),
    ("rm-2", "kill -9 of the worker and the flow at once, then another worker", kill_worker_and_flow),
    # The last: a new server holds back the events of runs that it has not seen begin, for 15 minutes.
    ("ppo-2", "the Prefect server is killed and started again", restart_server),
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
    subprocess.run(
        [sys.executable, "infra/deploy.py"], cwd=ROOT, env=world.environment, check=True, capture_output=True
    )
    automate(world, world.silent)
    world.worker.start()
    world.say("server, deployments and worker are there")
    start_smoke(world)
    for step, what, happen in events:
        world.wait_for_step(step)
        happen(world)
        world.say(f"{step}: {what}")
    world.wait(lambda: world.state() in ENDS, "the end", pause=1)
    world.say(f"the run's states: {', '.join(world.api.states(world.run))}")
    if world.state() != "Completed":
        raise SystemExit(world.worker.log.read_text()[-6000:])
    states, told = world.api.states(world.failed), [row["event"] for row in world.webhook.told]
    if states != world.ended or told != [state.lower() for state in states if state == "Failed"]:
        raise SystemExit(f"the run that failed: {', '.join(states)}; messages: {', '.join(told)}")


def automate(world: World, silent: int) -> None:
    """Let runs be taken for dead after `silent` seconds without a sign of life."""
    with SyncPrefectClient(world.api.url) as client:
        make_automations(client, silent)


def start_smoke(world: World, **overrides: Any) -> None:
    """Let the worker start a run of the smoke config with these settings."""
    settings = {"store": world.store.url, "runtime.backend": "docker" if world.daemon else "process"}
    world.start_run(
        "iterative-selftrain/prod", config="smoke", overrides=settings | overrides, out=str(world.out)
    )


def lose_server(world: World) -> None:
    """Kill the Prefect server for good while another run samples and judges, and end that run. Raises SystemExit if it does not."""
    world.wait(lambda: not world.processes(*FLOW), "the end of the flow's process", SECONDS_TO_END)
    world.out = world.folder / "last"
    start_smoke(world, **{"sample.rl": 200})
    world.wait_for_step("sample-sft-rl")
    runs = world.daemon.running if world.daemon else lambda: world.processes("sandbox.runner")
    world.wait(runs, "a sandbox", 240, pause=0.02)
    world.server.kill()
    told = time.monotonic()
    for pid in world.processes(*FLOW):
        os.kill(pid, signal.SIGTERM)
    world.wait(lambda: not world.processes(*FLOW), "the end without a server", SECONDS_WITHOUT_SERVER)
    world.say(f"without a server, another run ended {time.monotonic() - told:.1f} s after SIGTERM")


def left_by_run(world: World) -> list[str]:
    """What a run that has Completed left behind: unfinished builds, a damaged artifact, and slots that the server takes for held."""
    found = [f"unfinished build {path}" for path in world.local.glob("work/*/*")]
    attempts = {manifest["attempt"] for manifest in world.store.manifests("mine")}
    found += [f"damaged artifact mine/{attempt}" for attempt in attempts & {world.damaged}]
    limits = world.api.post("v2/concurrency_limits/filter")
    return found + [f"slot of {limit['name']}" for limit in limits if limit["active_slots"]]


def left(world: World) -> list[str]:
    """What is left behind when server and worker have ended."""
    found = [f"process {pid}" for pid in world.processes()]
    locks = (*world.local.glob("locks/*"), *(world.folder / "home" / "selftrain-slots").glob("*"))
    found += [f"held lock {path}" for path in locks if locked(path)]
    temporary = [path for path in world.scratch.iterdir() if not THEIRS.search(path.name)]
    # Not those in an unfinished build, which the run that was told to end leaves, to be gone on with.
    parts = [path for path in world.disk.rglob("*.part") if not path.is_relative_to(world.local / "work")]
    found += [f"temporary file {path}" for path in (*temporary, *parts)]
    found += [f"lease {path}" for path in world.store.files.listing(world.store.root) if "/lease/" in path]
    if world.daemon:
        found += [f"container {container.short_id}" for container in world.daemon.containers()]
    return found


def settled(look: Callable[[World], list[str]], world: World) -> list[str]:
    """What `look` finds, as soon as it is nothing; what is left of it after SECONDS_TO_END."""
    deadline = time.monotonic() + SECONDS_TO_END
    while (found := look(world)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


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
            remains = settled(left_by_run, world)
            lose_server(world)
            world.worker.kill()
            remains += settled(left, world)
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
