"""Simulates several machines by network namespaces, which share this machine's file system but have separate networks."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.command import ROOT
from tests.needs import need, need_tools

WIRE = {"a": "10.77.0.1", "b": "10.77.0.2"}
"""Addresses of two machines with a wire between them."""
HUB = "10.78.0.254"
"""Address of this machine, for those that have a wire to it only."""


@dataclass
class Machines:
    """Two network namespaces, `a` and `b`, and what was started in them."""

    prefix: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, machine: str, *arguments: str, log: Path, **environment: str) -> "subprocess.Popen[str]":
        """`python ARGUMENTS` in `machine`; what it prints goes to `log`."""
        with log.open("w") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", f"{self.prefix}{machine}", sys.executable, *arguments],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        return process

    def processes(self, machine: str) -> list[int]:
        """The ids of all processes in `machine`."""
        done = subprocess.run(
            ["ip", "netns", "pids", f"{self.prefix}{machine}"], capture_output=True, text=True
        )
        return [int(pid) for pid in done.stdout.split()]

    def kill(self, machine: str) -> None:
        """Kill -9 all that runs in `machine`."""
        for pid in self.processes(machine):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def ip(*arguments: str) -> None:
    """`ip ARGUMENTS`, which must succeed."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@contextmanager
def _namespaces() -> Iterator[Machines]:
    need_tools("ip")
    need(os.geteuid() == 0, "making network namespaces needs root")
    found = Machines(f"selftrain-{os.getpid()}-")
    try:
        for name in WIRE:
            ip("netns", "add", found.prefix + name)
            ip("-n", found.prefix + name, "link", "set", "lo", "up")
        yield found
    finally:
        for name in WIRE:
            found.kill(name)
        for process in found.started:
            process.wait()
        for name in WIRE:
            subprocess.run(["ip", "netns", "del", found.prefix + name], capture_output=True)


@contextmanager
def wired() -> Iterator[Machines]:
    """Two machines that see nothing but each other."""
    with _namespaces() as found:
        a, b = (found.prefix + name for name in WIRE)
        ip("link", "add", "wire", "netns", a, "type", "veth", "peer", "name", "wire", "netns", b)
        for name, address in WIRE.items():
            ip("-n", found.prefix + name, "addr", "add", f"{address}/24", "dev", "wire")
            ip("-n", found.prefix + name, "link", "set", "wire", "up")
        yield found


@contextmanager
def around_here() -> Iterator[Machines]:
    """Two machines that see nothing but this one, which they find at HUB."""
    with _namespaces() as found:
        for number, name in enumerate(WIRE, 1):
            end = f"st{os.getpid() % 1_000_000}{name}"
            ip("link", "add", end, "type", "veth", "peer", "name", "wire", "netns", found.prefix + name)
            ip("addr", "add", HUB, "peer", f"10.78.0.{number}", "dev", end)
            ip("link", "set", end, "up")
            ip("-n", found.prefix + name, "addr", "add", f"10.78.0.{number}", "peer", HUB, "dev", "wire")
            ip("-n", found.prefix + name, "link", "set", "wire", "up")
        yield found


@contextmanager
def forwarded(port: int, host: str = HUB) -> Iterator[None]:
    """Connections to `port` of `host` go to the same port of 127.0.0.1, where a server listens."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.start_server(connected, host, port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
