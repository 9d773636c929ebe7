"""Tests of slots: who needs one, that two never hold one at once, and that a slot comes back however its holder ends."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from selftrain.config import RunConfig, RuntimeConfig
from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef, Context, Outcome, Stage, Step
from selftrain.store.store import Store
from tasks import slots
from tasks.prefect import PrefectRun
from tasks.tags import occupies, tags
from tests.command import ROOT, PrefectServer, wait_until

LIMIT = "gpu-of-tests"
LIMITS = "v2/concurrency_limits"


@pytest.mark.parametrize(
    ("stage", "config", "inputs", "needs"),
    [
        ("sft", {}, (), {"gpu"}),
        ("train_reward", {}, (), {"gpu"}),
        ("evaluate", {}, (), {"gpu"}),
        ("report", {}, (), set()),
        ("prepare", {"toolchain": None}, (), set()),  # the bank, whose tests are not run
        ("prepare", {"toolchain": {"py": "3"}}, (), {"sandbox"}),
        ("execute", {"toolchain": {"py": "3"}}, (), {"sandbox"}),
        ("ppo", {"toolchain": None}, (), {"gpu"}),
        ("ppo", {"toolchain": {"py": "3"}}, (), {"gpu", "sandbox"}),
        ("mine", {"toolchain": None}, ("pairs",), set()),  # round 1 scores nothing
        ("mine", {"toolchain": None}, ("pairs", "reranker"), {"gpu"}),
        ("sample", {"sample": SimpleNamespace(engine="ctranslate2")}, (), {"gpu"}),
        ("sample", {"sample": SimpleNamespace(engine="openai")}, (), set()),
    ],
)
def test_what_a_step_occupies(stage: str, config: dict[str, Any], inputs: tuple[str, ...], needs: set[str]):
    ref = ArtifactRef(stage, "key")
    made = Stage(stage, 1, lambda _: Outcome(""))
    step = Step(made, stage, stage, SimpleNamespace(**config), dict.fromkeys(inputs, ref), ref)
    assert set(occupies(step, RuntimeConfig(device="cuda"))) == needs
    assert set(occupies(step, RuntimeConfig(device="cpu"))) == needs - {"gpu"}
    assert needs <= set(tags(step, RuntimeConfig(device="cuda")))


def test_a_run_without_a_server_of_others_holds_nothing():
    with temporary_settings({PREFECT_API_URL: None}), slots.Slots(("gpu",), "x", logging.getLogger("x")):
        assert not slots.folder().exists() or not list(slots.folder().iterdir())


def test_a_step_that_begins_while_the_server_restarts_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    asked: list[str] = []

    class Starting(BaseHTTPRequestHandler):
        """Fails at first, as a server whose database is not there yet; then it has no limits."""

        def do_GET(self) -> None:
            """Answer."""
            asked.append(self.path)
            self.send_response(500 if len(asked) == 1 else 404)
            self.end_headers()
            self.wfile.write(b"{}")

    def later(address: tuple[str, int]) -> None:
        wait_until(lambda: "waits for the Prefect server" in caplog.text, "a line that tells of it")
        restarted.append(HTTPServer(address, Starting))
        restarted[0].serve_forever()

    caplog.set_level(logging.INFO, "slots")
    monkeypatch.setattr(slots, "ASK_SECONDS", 0.1)
    restarted: list[HTTPServer] = []
    with HTTPServer(("127.0.0.1", 0), Starting) as gone:
        address = "127.0.0.1", gone.server_port
    thread = threading.Thread(target=later, args=(address,), daemon=True)
    url = f"http://127.0.0.1:{address[1]}/api"
    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        thread.start()
        with held():
            assert len(asked) == 2
    restarted[0].shutdown()
    restarted[0].server_close()
    thread.join(20)


class OneLimit(BaseHTTPRequestHandler):
    """A server with a limit for `gpu`, of which one slot is taken."""

    LIMIT: ClassVar = {"id": str(UUID(int=1)), "name": "gpu", "limit": 1, "active": True, "active_slots": 1, "slot_decay_per_second": 0.0}  # fmt: skip

    def do_GET(self) -> None:
        """Answer with the limit."""
        self.send(404 if "csrf-token" in self.path else 200, self.LIMIT)

    def send(self, code: int, content: dict[str, Any]) -> None:
        """Answer in JSON."""
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


def test_who_does_not_wait_is_told_that_the_slot_is_taken():
    class Taken(OneLimit):
        """A server that grants no slot."""

        def do_POST(self) -> None:
            """Refuse a slot."""
            self.send(423, self.LIMIT)

    with HTTPServer(("127.0.0.1", 0), Taken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with (
            temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
            slots.Slots(("gpu",), "ahead", logging.getLogger("slots"), patient=False) as ours,
        ):
            assert not ours.held
        server.shutdown()


def test_a_slot_whose_grant_was_lost_on_the_way_is_held_for_a_minute_only(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, float]] = []

    class Losing(OneLimit):
        """A server that grants a slot, and whose first answer does not arrive."""

        def do_POST(self) -> None:
            """Note for how long a lease is asked."""
            wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path.rpartition("/")[2], wanted.get("lease_duration", 0)))
            if len(asked) == 1:
                self.close_connection = True
                return
            self.send(200, {"lease_id": str(UUID(int=2)), "limits": []})

    monkeypatch.setattr(slots, "ASK_SECONDS", 0.1)
    with HTTPServer(("127.0.0.1", 0), Losing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}), held():
            pass
        server.shutdown()
    take = ("increment-with-lease", 60.0)
    assert asked == [take, take, ("renew", slots.LEASE_SECONDS), ("decrement-with-lease", 0)]


@pytest.fixture
def limit(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The limit LIMIT on the server, with one slot, that runs here take for that of the GPU."""
    monkeypatch.setenv("SELFTRAIN_GPU_LIMIT", LIMIT)
    monkeypatch.setattr(slots, "ASK_SECONDS", 0.1)
    server.send("POST", f"{LIMITS}/", {"name": LIMIT, "limit": 1})
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield LIMIT
    server.send("DELETE", f"{LIMITS}/{LIMIT}")


def taken(server: PrefectServer) -> int:
    """The taken slots of LIMIT."""
    return int(server.send("GET", f"{LIMITS}/{LIMIT}")["active_slots"])


def held(label: str = "ours") -> slots.Slots:
    """One slot of LIMIT."""
    return slots.Slots(("gpu",), label, logging.getLogger("slots"))


def in_thread(works: Any) -> threading.Thread:
    """A thread that runs `works` with a slot of its own; Prefect's settings are those of this one."""
    import contextvars

    def run() -> None:
        with held("theirs") as own:
            works(own)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,))
    thread.start()
    return thread


def test_a_limit_that_is_not_there_or_off_limits_nothing_and_one_of_0_is_refused(
    limit: str, server: PrefectServer, monkeypatch: pytest.MonkeyPatch
):
    path = f"{LIMITS}/{limit}"
    server.send("PATCH", path, {"limit": 0})
    with pytest.raises(UsageError, match=f"limit {limit} has 0 slots.*prefect gcl update"), held():
        pass
    with pytest.raises(UsageError, match="0 slots"):
        slots.check_limits(["gpu"])
    server.send("PATCH", path, {"limit": 1, "active": False})
    with held(), held():
        pass
    server.send("PATCH", path, {"active": True})
    monkeypatch.setenv("SELFTRAIN_GPU_LIMIT", "gpu-nowhere")
    with pytest.raises(UsageError, match="SELFTRAIN_GPU_LIMIT is gpu-nowhere.*no limit of this name"):
        slots.check_limits(["gpu"])
    monkeypatch.setattr(slots, "find_limits", lambda *_: [])  # as where `gpu` is not there
    with held(), held():
        assert taken(server) == 0


def test_two_never_hold_a_slot_at_once(limit: str, server: PrefectServer, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "slots")
    order = []
    with held():
        assert taken(server) == 1
        thread = in_thread(lambda _: order.append("theirs"))
        wait_until(lambda: "theirs waits" in caplog.text, "a line that tells of the wait", seconds=60)
        time.sleep(0.5)
        order.append("ours")
    thread.join(60)
    assert order == ["ours", "theirs"]
    assert taken(server) == 0
    said = [record.getMessage() for record in caplog.records if "waits" in record.getMessage()]
    assert said == [f"theirs waits for a free slot of the Prefect server's limit {LIMIT}, which has 1 slot"]
    assert not list(slots.folder().iterdir())


def test_a_lease_that_is_not_renewed_ends_and_its_holder_starts_again(
    limit: str, server: PrefectServer, monkeypatch: pytest.MonkeyPatch
):
    """As where a machine is gone, or where the server was gone for longer than the lease."""
    told: list[float] = []
    got, over = threading.Event(), threading.Event()

    def works(_: Any) -> None:
        got.set()
        over.wait(60)

    monkeypatch.setattr(slots, "RENEW_SECONDS", 3600.0)
    with held() as ours, get_client(sync_client=True) as client:
        progress = ours.watch(lambda *_: told.append(1.0))
        assert ours._lease is not None
        client.release_concurrency_slots_with_lease(ours._lease.id)
        ours._renew_once(client)  # nobody else wanted it
        progress(1, 2)
        assert taken(server) == 1
        thread = in_thread(works)
        expire(server, str(ours._lease.id))
        wait_until(got.is_set, "the slot of a lease that ended", seconds=90)
        ours._renew_once(client)
        with pytest.raises(slots.SlotLost, match=f"another run has the slot of {LIMIT}") as lost:
            progress(2, 2)
        assert lost.value.retryable
    assert taken(server) == 1, "the other's"
    over.set()
    thread.join(60)
    assert (told, taken(server)) == ([1.0], 0)


def expire(server: PrefectServer, lease: str) -> None:
    """Let the time of a lease be over, in the server's files."""
    variables = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
    (home,) = (value[13:] for value in variables if value.startswith("PREFECT_HOME="))
    folder = Path(home) / "concurrency_leases"
    for file, key in ((folder / f"{lease}.json", "expiration"), (folder / "expirations.json", lease)):
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {key: "2020-01-01T00:00:00+00:00"}))


def make(context: Context) -> Outcome:
    """The stage of these tests, which adds to a file when it begins and then waits a while."""
    with open(context.config["file"], "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(context.config["seconds"])
    (context.folder / "made").touch()
    return Outcome("")


@flow
def trains(store: str, file: str, seconds: float) -> None:
    """A run whose only step needs the GPU."""
    run = PrefectRun(RunConfig(store=store, runtime=RuntimeConfig(device="cuda")), Store(store))
    run.do(Stage("sft", 1, make), "sft", {"file": file, "seconds": seconds}, {})
    run.complete()


def test_what_the_store_has_takes_no_slot(limit: str, server: PrefectServer, tmp_path: Path):
    begun = tmp_path / "begun"
    trains(str(tmp_path / "store"), str(begun), 0.0)
    assert begun.exists()
    for results in (tmp_path / "store" / ".prefect").iterdir():
        results.unlink()  # as on another machine: the task runs, and finds the artifact
    with held():
        trains(str(tmp_path / "store"), str(begun), 0.0)
    assert len(begun.read_text().split()) == 1


def count_slots(context: Context) -> Outcome:
    """A stage that notes how many slots are taken while it works."""
    with get_client(sync_client=True) as client, open(context.config["file"], "a") as file:
        file.write(f"{client.read_global_concurrency_limit_by_name(LIMIT).active_slots}\n")
    (context.folder / "made").write_text("made")
    return Outcome("")


def damage(context: Context) -> Outcome:
    """A stage after which its input is damaged."""
    (context.inputs["sft"] / "made").write_text("lost")
    return Outcome("")


@flow
def meets_damage(store: str, file: str) -> None:
    """A run in which the artifact of a step that needs the GPU is damaged before another step reads it."""
    run = PrefectRun(RunConfig(store=store, runtime=RuntimeConfig(device="cuda")), Store(store))
    sft = run.do(Stage("sft", 1, count_slots), "sft", {"file": file}, {})
    damaged = run.do(Stage("agree", 1, damage), "damage", {}, {"sft": sft})
    run.do(Stage("agree", 1, lambda _: Outcome("")), "reads", {}, {"sft": sft, "after": damaged})
    run.complete()


def test_a_damaged_input_is_rebuilt_in_a_slot(limit: str, server: PrefectServer, tmp_path: Path):
    meets_damage(str(tmp_path / "store"), str(tmp_path / "counts"))
    assert (tmp_path / "counts").read_text().split() == ["1", "1"]
    assert taken(server) == 0


def start(tmp_path: Path, server: PrefectServer, seconds: float) -> subprocess.Popen[str]:
    """A process that runs the flow."""
    command = (
        "from tests.tasks.test_slots import trains; import sys; trains(*sys.argv[1:3], float(sys.argv[3]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", command, str(tmp_path / "store"), str(tmp_path / "begun"), str(seconds)],
        cwd=ROOT,
        env=os.environ | {"PREFECT_API_URL": server.url},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_slot_comes_back_from_who_is_killed_and_waiting_ends_on_sigterm(
    limit: str, server: PrefectServer, tmp_path: Path
):
    with held():
        waits = start(tmp_path, server, 0.0)
        assert waits.stderr is not None
        for line in waits.stderr:
            if "waits for a free slot" in line:
                break
        else:
            pytest.fail("it ended")
        told = time.monotonic()
        waits.send_signal(signal.SIGTERM)
        waits.stderr.read()
        assert waits.wait(60) != 0
        assert time.monotonic() - told < 30
    begun = tmp_path / "begun"
    assert not begun.exists()
    holds = start(tmp_path, server, 600.0)
    try:
        wait_until(begun.exists, "the stage", seconds=120)
        assert taken(server) == 1
    finally:
        holds.kill()
        holds.wait()
    before = time.monotonic()
    with held():
        assert time.monotonic() - before < 10
