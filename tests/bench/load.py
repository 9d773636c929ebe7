"""Load on the sandbox's HTTP server: many clients with right, wrong, endless, huge and abandoned requests.

    python -m tests.bench.load --backend docker --workers 2 --clients 32 --seconds 600

Prints one JSON object. `wrong`: answers that are not the expected ones; `before`, `after`: what the server and its workers use when
they are idle, before and after the load (`files`: entries of their folders for programs). Exit code 1 if an answer was wrong, or if
processes, files or descriptors were left. Not measured: speed, because the clients share the server's processors.
"""

import argparse
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandbox.backends.docker import LABEL
from tests.sandbox.serving import Server, serving

PRINTS = {
    "python": "print({n})",
    "nodejs": "console.log({n})",
    "bash": "echo {n}",
    "cpp": '#include <cstdio>\nint main() {{ puts("{n}"); }}',
    "java": "class Main {{ public static void main(String[] a) {{ System.out.println({n}); }} }}",
    "typescript": "const n: number = {n};\nconsole.log(n)",
}
"""Programs that print a number, by language."""
WRONG: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "raises": ("python", "raise ValueError({n})", {"return_code": 1}),
    "aborts": ("cpp", "#include <cstdlib>\nint main() {{ abort(); }} // {n}", {"return_code": -6}),
    "endless": ("python", "while True: pass # {n}", {"status": "TimeLimitExceeded"}),
    "sleeps": ("bash", "sleep 1000 # {n}", {"status": "TimeLimitExceeded"}),
    "prints too much": ("python", "while True: print('{n}' * 10000)", {"return_code": -9}),
    "takes too much memory": ("python", "x = bytearray(3 << 30) # {n}", {}),
    "does not compile": ("cpp", "int main() {{ return {n} }}", None),
}
"""Programs that fail: language, source, fields of `run_result`."""
HUGE = 8 << 20  # bytes of a large input


class Client:
    """One client, which sends requests until the deadline and counts their answers in `counts`."""

    def __init__(self, server: Server, languages: list[str], deadline: float, seed: int) -> None:
        self.host, self.languages, self.deadline = server.url.removeprefix("http://"), languages, deadline
        self.random, self.number = random.Random(seed), seed * 10**7
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.seconds: list[float] = []

    def run(self) -> None:
        """Send requests of all kinds, in a random order."""
        kinds: list[tuple[Callable[[], None], int]] = [
            (self.prints, 30),
            (self.fails, 8),
            (self.streams, 4),
            (self.hangs_up, 5),
            (self.leaves_a_daemon, 3),
            (self.sends_much, 1),
            (self.is_refused, 2),
        ]
        while time.monotonic() < self.deadline:
            [kind] = self.random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
            self.number += 1
            try:
                kind()
            except Exception as error:  # whatever it is, it is no answer
                self.wrong.append(f"{kind.__name__}: {error!r}"[:300])

    def ask(self, path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        """Status and answer; None if the queue was full."""
        started = time.monotonic()
        connection = http.client.HTTPConnection(self.host, timeout=300)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        self.seconds.append(time.monotonic() - started)
        self.counts[str(answer.status)] += 1
        if answer.status == 503 and answer.headers["Retry-After"]:
            time.sleep(self.random.random())
            return None
        return answer.status, json.loads(text) if path != "/v1/judge" else list(
            map(json.loads, text.splitlines())
        )

    def expect(self, what: str, got: Any, expected: Any) -> None:
        """Count an answer that is not the expected one."""
        if got != expected:
            self.wrong.append(f"{what}: expected {expected!r:.150}, got {got!r:.300}")

    def prints(self) -> None:
        """A right program."""
        language = self.random.choice(self.languages)
        code = PRINTS[language].format(n=self.number)
        if answer := self.ask("/run_code", {"code": code, "language": language, "compile_timeout": 60}):
            ran = answer[1].get("run_result") or {}
            self.expect(language, (answer[0], ran.get("stdout")), (200, f"{self.number}\n"))

    def fails(self) -> None:
        """A program that fails."""
        name = self.random.choice(list(WRONG))
        language, code, fields = WRONG[name]
        body = {
            "code": code.format(n=self.number),
            "language": language,
            "run_timeout": 1,
            "compile_timeout": 60,
        }
        if answer := self.ask("/run_code", body):
            self.expect(name, (answer[0], answer[1].get("status")), (200, "Failed"))
            ran = answer[1].get("run_result")
            self.expect(name, ran and {key: ran[key] for key in fields or ()}, fields)

    def streams(self) -> None:
        """Several programs in one request."""
        rows = [
            {
                "id": str(at),
                "language": "py",
                "program": f"print(input()) # {self.number}",
                "cases": [{"stdin": f"{at}\n", "stdout": f"{at % 3}\n"}],
            }
            for at in range(6)
        ]
        if answer := self.ask("/v1/judge", {"programs": rows}):
            found = {line["id"]: line["verdict"] for line in answer[1]}
            expected = {str(at): "passed" if at < 3 else "wrong_answer" for at in range(6)}
            self.expect("streams", found, expected)

    def hangs_up(self) -> None:
        """A client that disconnects before the answer."""
        connection = http.client.HTTPConnection(self.host, timeout=300)
        body = {"code": f"while True: print({self.number})", "language": "python", "run_timeout": 30}
        connection.request("POST", "/run_code", json.dumps(body), {"Content-Type": "application/json"})
        time.sleep(self.random.random())
        connection.close()
        self.counts["hung up"] += 1

    def leaves_a_daemon(self) -> None:
        """A program that leaves a process and files."""
        code = f"touch here; (setsid sleep 1000 &) >/dev/null 2>&1; echo {self.number}"
        if answer := self.ask("/run_code", {"code": code, "language": "bash"}):
            self.expect("daemon", answer[1]["run_result"]["stdout"], f"{self.number}\n")

    def sends_much(self) -> None:
        """A large input."""
        body = {"code": "import sys\nprint(len(sys.stdin.read()))", "language": "python", "stdin": "x" * HUGE}
        if answer := self.ask("/run_code", body):
            self.expect("large input", answer[1]["run_result"]["stdout"], f"{HUGE}\n")

    def is_refused(self) -> None:
        """A wrong request."""
        if answer := self.ask("/run_code", {"code": "", "language": "python", "run_timeout": 1e9}):
            self.expect("wrong request", answer[0], 422)


class Usage:
    """What a server and its workers use. `folder`: for the files of workers on this machine."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.pid, self.folder = server.process.pid, folder

    def read(self) -> dict[str, int]:
        """Processes, resident memory in MiB, the server's descriptors, files of workers and in their containers."""
        containers = _output("docker", "ps", "-q", "--filter", f"label={LABEL}={self.pid}").split()
        inside = [_output("docker", "exec", name, "find", *_WRITABLE) for name in containers]
        processes = self._processes(containers)
        return {
            "processes": len(processes),
            "server_mib": _resident(self.pid),
            "all_mib": sum(map(_resident, processes)),
            "descriptors": len(os.listdir(f"/proc/{self.pid}/fd")),
            "files": sum(1 for _ in self.folder.rglob("*")) + sum(len(text.split()) for text in inside),
        }

    def _processes(self, containers: list[str]) -> list[int]:
        """The server, its descendants, and the processes in its containers."""
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                parent = int(path.read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(path.parent.name))
        found = [self.pid]
        for name in containers:
            found += map(int, _output("docker", "top", name, "-o", "pid").split()[1:])
        for pid in found:
            found += [child for child in children.get(pid, ()) if child not in found]
        return found


_WRITABLE = ("/tmp", "/dev/shm", "/dev/mqueue")


def _output(*command: str) -> str:
    """What a command prints; nothing if it is not there or fails."""
    with suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, text=True).stdout
    return ""


def _resident(pid: int) -> int:
    """A process's resident memory in MiB, 0 if it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    return 0


def idle(server: Server) -> None:
    """Wait until no program runs or waits."""
    deadline = time.monotonic() + 300
    while server.metric("sandbox_running ") or server.metric("sandbox_queue "):
        if time.monotonic() > deadline:
            raise TimeoutError("the server still has programs of clients that are gone")
        time.sleep(0.2)
    time.sleep(2)


def spread(server: Server, languages: list[str], clients: int, seconds: float) -> list[Client]:
    """Put `clients` clients on the server for `seconds`."""
    deadline = time.monotonic() + seconds
    all_clients = [Client(server, languages, deadline, seed) for seed in range(1, clients + 1)]
    threads = [threading.Thread(target=client.run) for client in all_clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    idle(server)
    return all_clients


def load(backend: str, workers: int, clients: int, seconds: float, languages: list[str]) -> dict[str, Any]:
    """Start a server, put load on it, and return the measured values."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        options = ("--backend", backend, "--workers", str(workers), "--queue", str(clients // 2))
        with serving(*options, TMPDIR=name) as server:
            usage = Usage(server, folder)
            warm = spread(server, languages, clients, seconds / 4)
            before = usage.read()
            main = spread(server, languages, clients, seconds)
            after = usage.read()
            figures = {
                key: server.metric(key)
                for key in ("sandbox_errors_total", "sandbox_refused_total", "sandbox_cancelled_total")
            }
            text = server.text("/metrics")
        left = sum(1 for _ in folder.rglob("*"))
    taken = sorted(second for client in main for second in client.seconds)
    wrong = [text for client in (*warm, *main) for text in client.wrong]
    return {
        "backend": backend,
        "clients": clients,
        "seconds": seconds,
        "answers": dict(sum((client.counts for client in (*warm, *main)), Counter())),
        "wrong": len(wrong),
        "wrong_first": wrong[:5],
        "p50_seconds": round(taken[len(taken) // 2], 3),
        "p99_seconds": round(taken[len(taken) * 99 // 100], 3),
        "buckets_in_metrics": len(re.findall(r"\nsandbox_request_seconds_bucket", text)),
        **figures,
        "before": before,
        "after": after,
        "files_after_the_end": left,
    }


def leaks(found: dict[str, Any]) -> list[str]:
    """What was left: more processes, files or descriptors than before the load, or twice the server's memory. Workers and warm
    compilers that the load started for the first time are no leak, nor the up to 25 connections that docker's client keeps."""
    before, after = found["before"], found["after"]
    over = [
        name
        for name, more in (("processes", 4), ("files", 4), ("descriptors", 32))
        if after[name] > before[name] + more
    ]
    over += ["server_mib"] * (after["server_mib"] > 2 * before["server_mib"] + 100)
    return over + ["files_after_the_end"] * (found["files_after_the_end"] > 0)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="docker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--languages", nargs="+", default=list(PRINTS), choices=list(PRINTS))
    arguments = parser.parse_args()
    found = load(
        arguments.backend, arguments.workers, arguments.clients, arguments.seconds, arguments.languages
    )
    print(json.dumps(found | {"leaks": leaks(found)}))
    return 1 if found["wrong"] or leaks(found) else 0


if __name__ == "__main__":
    sys.exit(main())
