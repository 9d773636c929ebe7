"""Starts a Dask scheduler with worker processes, on this machine or on the simulated machines of `tests.machines`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.command import ROOT
from tests.machines import Machines


@dataclass
class Cluster:
    """A scheduler at `address`; everything that its processes write is in `folder`."""

    folder: Path
    address: str = ""
    workers: "dict[str, subprocess.Popen[str] | subprocess.Popen[bytes]]" = field(default_factory=dict)

    def add(self, name: str, machines: Machines | None = None, **environment: str) -> None:
        """Start a worker, in the machine of that name if `machines` are given."""
        arguments = (
            "-m", "distributed.cli.dask_worker", self.address, "--name", name, "--nthreads", "1", "--no-nanny",
            "--no-dashboard", "--local-directory", str(self.folder / name),
        )  # fmt: skip
        log = self.folder / f"{name}.log"
        if machines is not None:
            self.workers[name] = machines.start(name, *arguments, log=log, **environment)
            return
        with log.open("wb") as out:
            self.workers[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill -9 a worker, and nothing that it started."""
        self.workers[name].send_signal(signal.SIGKILL)
        self.workers.pop(name).wait()

    def said(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log"))


@contextmanager
def cluster(folder: Path, host: str = "127.0.0.1", workers: int = 0) -> Iterator[Cluster]:
    """A scheduler, with `workers` on this machine; all end with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    arguments = ("--host", host, "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    with (folder / "scheduler.log").open("wb") as out:
        scheduler = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_scheduler", *arguments],
            env=os.environ | {"DASK_TEMPORARY_DIRECTORY": str(folder)},
            stdout=out,
            stderr=out,
        )
    found = Cluster(folder)
    try:
        deadline = time.monotonic() + 120
        while not found.address:
            assert scheduler.poll() is None, found.said()
            assert time.monotonic() < deadline, found.said()
            time.sleep(0.1)
            try:
                found.address = json.loads(file.read_text())["address"]
            except (OSError, ValueError):
                continue
        for number in range(workers):
            found.add(f"worker-{number}")
        yield found
    finally:
        for process in [*found.workers.values(), scheduler]:
            process.kill()
            process.wait()
