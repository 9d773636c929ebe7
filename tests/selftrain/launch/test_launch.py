"""Tests of child processes: progress, logs, failures, secrets, and that no child outlives its parent."""

import fcntl
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import ModelConfig, PPOConfig, RewardConfig, RuntimeConfig, SftConfig
from selftrain.errors import ChildFailed, UsageError
from selftrain.launch import commands
from selftrain.launch.launch import launch
from selftrain.launch.nodes import Job, gather
from selftrain.launch.processes import LAST_LINES
from selftrain.models.layers import keep_layers
from selftrain.models.memory import (
    GIB,
    available_bytes,
    check_gpu,
    count_parameters,
    least_bytes,
    tiny_parameters,
)
from selftrain.models.models import load_classifier
from selftrain.redact import without_secrets
from selftrain.stage import Context, Outcome
from selftrain.stages.ppo import PPOSlice
from selftrain.stages.sft import SftSlice
from selftrain.stages.train_reward import RewardSlice
from selftrain.stop import STOP, Stop, Stopped
from tests.command import ROOT, alive
from tests.selftrain.conftest import TINY

HEAD = """
import gc, sys, time
COLLECTING = gc.isenabled()
from selftrain.errors import StoreError, UsageError
from selftrain.launch.launch import parent_request, child_main, report_progress
from selftrain.stage import Outcome
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that launches a child with the given body of `work(child)`, on `processes` ranks."""
    (tmp_path / "modules").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))

    def start(
        body: str,
        processes: int = 1,
        config: Any = None,
        progress: Any = None,
        log: Any = None,
        answer: Any = None,
        **runtime: Any,
    ) -> Outcome:
        work = "def work(child):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "modules" / "childish.py").write_text(
            f'{HEAD}\n{work}\nif __name__ == "__main__":\n    child_main(work)\n'
        )
        build = Context(
            config=config or {},
            inputs={"problems": tmp_path / "problems"},
            folder=tmp_path / "work",
            runtime=RuntimeConfig(processes=processes, **runtime),
            progress=progress or (lambda **_: None),
            log=log or (lambda _: None),
        )
        distributed = processes > 1 or bool(runtime)
        return launch("childish", build, distributed=distributed, extra={"more": [1]}, on_request=answer)

    return start


def test_the_child_is_told_everything_and_its_outcome_comes_back(run: Any, tmp_path: Path):
    outcome = run(
        """
        return Outcome("digest", {
            "config": child.config, "problems": str(child.inputs["problems"]), "folder": str(child.folder),
            "processes": child.runtime.processes, "extra": child.extra,
        })
        """,
        config={"seed": 3},
    )
    assert outcome == Outcome(
        "digest",
        {
            "config": {"seed": 3},
            "problems": str(tmp_path / "problems"),
            "folder": str(tmp_path / "work"),
            "processes": 1,
            "extra": {"more": [1]},
        },
    )


def test_a_child_collects_garbage_once_its_imports_are_done(run: Any):
    outcome = run('return Outcome("", {"importing": COLLECTING, "working": gc.isenabled()})')
    assert outcome.metrics == {"importing": False, "working": True}


def test_progress_lines_reach_the_parent_and_other_lines_the_log(run: Any):
    seen: list[dict[str, Any]] = []
    said: list[str] = []
    run(
        """
        print("a line of a library", flush=True)
        report_progress(1, 2, "steps", loss=0.5)
        print("@progression is something else", file=sys.stderr, flush=True)
        print("@progress {torn", flush=True)
        report_progress(2, 2, "steps")
        return Outcome("")
        """,
        progress=lambda **line: seen.append(line),
        log=said.append,
    )
    assert said == ["a line of a library", "@progression is something else", "@progress {torn"]
    assert seen == [
        {"done": 1, "total": 2, "unit": "steps", "figures": {"loss": 0.5}},
        {"done": 2, "total": 2, "unit": "steps", "figures": {}},
    ]


def test_progress_is_not_lost_behind_a_bar_that_has_not_ended(run: Any):
    seen: list[dict[str, Any]] = []
    said: list[str] = []
    run(
        """
        print("Loading: 99%", end="", file=sys.stderr, flush=True)
        report_progress(1, 2, "steps")
        print("host-1: \\nhost-1: @progress " + '{"done": 2, "total": 2}', flush=True)  # as pdsh gives it
        print("   ", flush=True)
        print("TimeoutError: ", flush=True)
        return Outcome("")
        """,
        progress=lambda **line: seen.append(line),
        log=said.append,
    )
    assert [line["done"] for line in seen] == [1, 2]
    assert said == ["Loading: 99%", "TimeoutError:"]


def test_no_secret_gets_into_the_log_or_the_error(run: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    said: list[str] = []
    with pytest.raises(ChildFailed) as raised:
        run(
            "import os; print('with', os.environ['HF_TOKEN']); raise ValueError(os.environ['HF_TOKEN'])",
            log=said.append,
        )
    assert "with ***" in said
    assert "hf_abcdefgh" not in str(raised.value) + "".join(said)
    assert without_secrets("GET s3://me:pass@host/x?a=b:c@d", []) == "GET s3://me:***@host/x?a=b:c@d"
    assert without_secrets("redis://:pass@host/0", []) == "redis://:***@host/0", "without a user"
    assert without_secrets("postgresql://me:pa@ss@host/db", []) == "postgresql://me:***@host/db"


def test_a_question_of_any_rank_is_answered_and_torchrun_leaves_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    body = """
    import os
    rank = int(os.environ["RANK"])
    for number in range(3):
        assert parent_request(child, [rank, number]) == {"rank": rank, "number": number}
    return Outcome("answered")
    """
    found = run(body, processes=2, answer=lambda asked: {"rank": asked[0], "number": asked[1]})
    assert found.records_digest == "answered"
    assert list(scratch.iterdir()) == []


def test_a_failed_child_is_named_with_its_last_lines(run: Any):
    body = """
    for number in range(200):
        print("line", number)
    raise ZeroDivisionError("the reason")
    """
    with pytest.raises(ChildFailed, match="childish .*ended with code 1") as raised:
        run(body)
    lines = str(raised.value).splitlines()
    assert lines[-1] == "ZeroDivisionError: the reason"
    assert "line 199" in lines
    assert "line 100" not in lines
    assert len(lines) == LAST_LINES + 1


def test_the_last_words_of_a_rank_come_last_under_torchrun_too(run: Any):
    body = """
    import os
    if os.environ["RANK"] == "1":
        raise ZeroDivisionError("the reason")
    time.sleep(60)
    """
    with pytest.raises(ChildFailed, match=r"ended with code 1") as raised:
        run(body, processes=2)
    assert str(raised.value).splitlines()[-1].endswith("ZeroDivisionError: the reason")


def test_a_killed_child_is_a_failed_one(run: Any):
    with pytest.raises(ChildFailed, match="ended with code -9"):
        run("import os; os.kill(os.getpid(), 9)")


def test_a_child_that_ends_without_a_result_failed(run: Any):
    with pytest.raises(ChildFailed, match="ended without a result"):
        run("import os; os._exit(0)")


def test_an_outcome_of_an_earlier_child_is_not_taken_for_this_ones(run: Any):
    assert run('return Outcome("first")').records_digest == "first"
    with pytest.raises(ChildFailed, match="ended without a result"):
        run("import os; os._exit(0)")


def test_a_usage_error_is_raised_here_as_it_was_there(run: Any):
    with pytest.raises(UsageError) as raised:
        run(r'raise UsageError("first line\nsecond: C:\\new")')
    assert str(raised.value) == "first line\nsecond: C:\\new"


def test_another_error_of_ours_is_a_failed_child(run: Any):
    with pytest.raises(ChildFailed, match="StoreError: the disk is full"):
        run('raise StoreError("the disk is full")')


def test_a_usage_error_of_ranks_is_found_in_all_that_torchrun_says(run: Any):
    with pytest.raises(UsageError, match=r"^the batch is too large$"):
        run('raise UsageError("the batch is too large")', processes=2)


def test_files_of_the_users_folder_are_not_imported(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "queue.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(tmp_path / "here")
    assert run("import queue; return Outcome('fine')").records_digest == "fine"


@pytest.mark.slow
def test_a_child_that_takes_too_long_is_ended(run: Any, tmp_path: Path):
    body = """
    import os
    print("pid", os.getpid(), flush=True)
    time.sleep(600)
    """
    said: list[str] = []
    with pytest.raises(
        ChildFailed, match=r"childish was ended: it took longer than runtime.stage_hours=0.003"
    ) as raised:
        run(body, log=said.append, stage_hours=0.003)
    assert str(raised.value).splitlines()[-1] == said[-1]
    assert not alive(int(said[-1].split()[1]))


def test_ranks_do_not_go_on_without_their_launcher(run: Any):
    with pytest.raises(ChildFailed, match="ended with code -9"):
        run("import os; os.kill(os.getppid(), 9); time.sleep(600)", processes=2)


@pytest.mark.slow
def test_nothing_is_left_of_ranks_that_do_not_want_to_end(run: Any, tmp_path: Path):
    body = """
    import os, signal, subprocess
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    daemon = subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL)
    for pid in (os.getpid(), daemon.pid):
        open(child.folder / f"pid-{pid}", "w").close()
    if os.environ["RANK"] == "0":
        while len(list(child.folder.glob("pid-*"))) < 4:
            time.sleep(0.1)
        report_progress(1, 2)
    else:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)
    """

    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(body, processes=2, progress=interrupt)
    left = [int(path.name[4:]) for path in (tmp_path / "work").glob("pid-*")]
    assert len(left) == 4
    assert not any(map(alive, left))


# Before anything is started


def slices(reranker: Path) -> list[tuple[Any, dict[str, Path]]]:
    """Each training stage's slice and inputs, the models being `reranker` or like it."""
    models = {"start": reranker, "generator": reranker, "reranker": reranker}
    return [
        (SftSlice(seed=1, model=ModelConfig(base=str(reranker)), base_digest=None, sft=SftConfig()), {}),
        (RewardSlice(seed=1, reward=RewardConfig()), models),
        (PPOSlice(seed=1, ppo=PPOConfig(), max_new_tokens=8), models),
    ]


def test_parameters_are_counted_from_headers_alone(generator: Path, reranker: Path):
    own = TINY.model_copy(update={"vocabulary": 280})
    assert count_parameters(generator) == tiny_parameters(own) == 280 * 16 + 2 * (13 * 256 + 32) + 16
    assert count_parameters(reranker) == count_parameters(generator) + 16, (
        "a score head of one label beside the trunk"
    )
    assert count_parameters(Path(__file__).parent) == 0


def test_a_reranker_with_fewer_layers_than_the_generator_needs_less(generator: Path, tmp_path: Path):
    model = load_classifier(generator, fresh_head=True)
    keep_layers(model, 1)
    model.save_pretrained(tmp_path / "short")
    inputs = {"generator": generator, "reranker": generator}
    config = PPOSlice(seed=1, ppo=PPOConfig(), max_new_tokens=8)
    long, short = (
        least_bytes(config, inputs | {"reranker": folder}, RuntimeConfig(processes=1))
        for folder in (generator, tmp_path / "short")
    )
    assert long - short == 4 * (13 * 256 + 32 - 16), "a layer of 16 x 16 weights less, and a score head more"


def test_every_training_stage_is_known_to_need_memory(reranker: Path):
    parameters = count_parameters(reranker)
    least = [least_bytes(config, inputs, RuntimeConfig(processes=1)) for config, inputs in slices(reranker)]
    assert least[0] == 16 * parameters, "float32 weights, their gradients and Adam's two moments"
    assert all(needs >= 16 * (parameters - 16) for needs in least)
    assert least[2] - least[1] >= 2 * 4 * (parameters - 16), (
        "PPO keeps a reference and the reranker beside the policy"
    )
    one_layer = RewardSlice(seed=1, reward=RewardConfig(layers=1))
    inputs = slices(reranker)[1][1]
    layer = 13 * 256 + 32
    runtime = RuntimeConfig(processes=1)
    assert least_bytes(one_layer, inputs, runtime) == least[1] - 16 * layer, "one of its two layers"
    assert least_bytes({}, {}, RuntimeConfig()) == 0
    nowhere = SftSlice(seed=1, model=ModelConfig(base="not/here"), base_digest=None, sft=SftConfig())
    assert least_bytes(nowhere, {}, RuntimeConfig()) == 0
    untrained = slices(reranker)[0][0].model_copy(update={"sft": SftConfig(epochs=0)})
    assert least_bytes(untrained, {}, RuntimeConfig()) == 0


def test_more_ranks_than_memory_are_refused_before_any_is_started(run: Any, tmp_path: Path):
    model = ModelConfig(hidden_size=16384, layers=50, heads=8)
    config = SftSlice(seed=1, model=model, base_digest=None, sft=SftConfig())
    with pytest.raises(
        UsageError, match=r"4 training processes need at least [\d.]+ GiB .* GiB are free here; lower"
    ) as raised:
        run("raise AssertionError('started')", processes=4, config=config)
    # 16 bytes of each of the 50 * 13 * 16384^2 weights in the layers, and no more than the rest explains.
    needs = float(str(raised.value).split("at least ")[1].split()[0])
    assert 4 * 16 * 50 * 13 * 16384**2 / GIB < needs < 5 * 16 * 50 * 13 * 16384**2 / GIB * 1.1
    assert not (tmp_path / "work").exists()


def test_more_ranks_than_gpus_are_told():
    with pytest.raises(
        UsageError, match=r"runtime.processes 999, and PyTorch sees \d+ GPUs here; expected one for each"
    ):
        check_gpu(needs=0, processes=999, local_rank=0)


def test_this_machines_memory_is_known():
    if not Path("/proc/meminfo").exists():
        pytest.skip("no /proc/meminfo")
    free = available_bytes()
    assert free is not None
    assert 0 < free < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            {"deepspeed": "zero.json"},
            r"runtime\.deepspeed is set but deepspeed is not installed; `pip install",
        ),
        (
            {"launcher": "deepspeed", "hostfile": "hosts"},
            r"runtime\.launcher is deepspeed but deepspeed is not",
        ),
    ],
)
def test_a_missing_deepspeed_is_told(
    run: Any, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], said: str
):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UsageError, match=said):
        run("raise AssertionError('started')", **setting)


# Other launchers and machines: their commands


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "hosts: expected lines"),
        ("# none\n\n", "hosts: expected lines"),
        ("a slots=2\nb 2\n", "hosts:2: expected `HOST slots=GPUS`.*'b 2'"),
        ("a slots=0\n", "hosts:1: expected"),
        ("a slots=2\na slots=2\n", "hosts:2: expected"),
        ("a slots=2\n", "has a slots=2; expected runtime.nodes=2 hosts with runtime.processes=2 slots each"),
        ("a slots=2\nb slots=1\n", "has a slots=2, b slots=1; expected"),
    ],
)
def test_a_wrong_hostfile_is_told(tmp_path: Path, text: str, said: str):
    (tmp_path / "hosts").write_text(text)
    runtime = RuntimeConfig(processes=2, nodes=2, launcher="deepspeed", hostfile=str(tmp_path / "hosts"))
    with pytest.raises(UsageError, match=said):
        commands.deepspeed("childish", Path("resolved.json"), runtime)
    with pytest.raises(UsageError, match="cannot be read"):
        commands.read_hostfile(tmp_path / "nothing")


def test_each_machine_gets_its_number_and_the_first_ones_address():
    runtime = RuntimeConfig(processes=8, nodes=3, rendezvous="10.0.0.1:29500")
    found = commands.torchrun("childish", Path("resolved.json"), runtime, 2, "attempt-1")
    assert found[1:3] == ["-m", "torch.distributed.run"]
    assert {"--nnodes=3", "--node-rank=2", "--nproc-per-node=8"} < set(found)
    assert {"--master-addr=10.0.0.1", "--master-port=29500", "--rdzv-id=attempt-1"} < set(found)
    assert found[-4:] == ["-m", "selftrain.launch.child", "childish", "resolved.json"]
    with pytest.raises(UsageError, match=r"expected HOST:PORT, .* got '10\.0\.0\.1'"):
        commands.torchrun("childish", Path(), RuntimeConfig(nodes=2, rendezvous="10.0.0.1"))


def test_the_interface_is_named_to_both_libraries(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    found = commands.environment(RuntimeConfig(interface="eth1"))
    assert (found["GLOO_SOCKET_IFNAME"], found["NCCL_SOCKET_IFNAME"]) == ("eth1", "ib0"), (
        "a machine's own name wins"
    )


def test_processes_on_cpus_keep_the_memory_of_large_tensors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "5")
    found = commands.environment(RuntimeConfig())
    assert found["MALLOC_MMAP_THRESHOLD_"] == str(commands.kept_bytes(" ".join(platform.libc_ver())))
    assert found["MALLOC_TRIM_THRESHOLD_"] == "5", "a machine's own value wins"
    assert not {"MALLOC_MMAP_THRESHOLD_"} & set(commands.environment(RuntimeConfig(device="cuda")))


@pytest.mark.parametrize(
    ("libc", "kept"),
    [("glibc 2.36", 1 << 30), ("glibc 2.41", 1 << 30), ("glibc 2.34", 1 << 25), ("", 1 << 25)],
)
def test_an_older_libc_gets_a_threshold_that_it_accepts(libc: str, kept: int):
    assert commands.kept_bytes(libc) == kept


PDSH = """#!/bin/sh
# Stands in for pdsh and ssh: runs the command once per host, here, with nothing of this environment, labelled as pdsh does.
printf '%s\n' "$@" > {log}
while [ "$1" != -w ]; do shift; done
hosts=$(echo "$2" | tr , ' '); shift 2
number=0
for host in $hosts; do
  command=$(echo "$*" | sed "s/%n/$number/g")
  (env -i PATH="$PATH" sh -c "$command" </dev/null 2>&1 | sed "s/^/$host: /") &
  number=$((number + 1))
done
wait
"""


@pytest.mark.slow
def test_deepspeeds_launcher_starts_ranks_on_every_host_with_all_they_need(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bin").mkdir()
    for name, text in (
        ("pdsh", PDSH.format(log=shlex.quote(str(tmp_path / "pdsh.log")))),
        ("ssh", "#!/bin/sh\n"),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    (tmp_path / "hosts").write_text("worker-0 slots=4\nworker-1 slots=4\nworker-2 slots=4\n")
    body = """
    import json, os
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "DS_ACCELERATOR",
             "GLOO_SOCKET_IFNAME", "PYTHONSAFEPATH", "HF_TOKEN")
    (child.private / f"rank-{os.environ['RANK']}.json").write_text(json.dumps({n: os.environ.get(n) for n in names}))
    report_progress(1, 1, "steps")
    return Outcome("done")
    """
    seen: list[Any] = []
    found = run(
        body,
        processes=2,
        nodes=2,
        launcher="deepspeed",
        hostfile=str(tmp_path / "hosts"),
        rendezvous="127.0.0.1:29511",
        interface="lo",
        progress=lambda **line: seen.append(line["done"]),
    )
    assert found.records_digest == "done"
    assert seen == [1], "what rank 0 reports is found behind pdsh's label"
    private = tmp_path / "work" / "progress"
    ranks = [json.loads((private / f"rank-{rank}.json").read_text()) for rank in range(4)]
    assert [rank["LOCAL_RANK"] for rank in ranks] == ["0", "1", "0", "1"]
    for rank in ranks:
        assert rank["WORLD_SIZE"] == "4"
        assert (rank["MASTER_ADDR"], rank["MASTER_PORT"]) == ("127.0.0.1", "29511")
        assert (rank["OMP_NUM_THREADS"], rank["DS_ACCELERATOR"], rank["GLOO_SOCKET_IFNAME"]) == (
            "1",
            "cpu",
            "lo",
        )
        assert rank["PYTHONSAFEPATH"] == "1"
        assert rank["HF_TOKEN"] is None, "credentials are each machine's own"
    assert "worker-0,worker-1\n" in (tmp_path / "pdsh.log").read_text()
    assert "hf_abcdefgh" not in (private / "deepspeed_env").read_text() + (tmp_path / "pdsh.log").read_text()
    assert not (private / "alive.json").exists()


def test_a_rank_of_another_machine_ends_when_the_parents_sign_of_life_is_gone(tmp_path: Path):
    (tmp_path / "childish.py").write_text(HEAD + SLEEPER)
    (tmp_path / "alive.json").write_text('{"beat": 1}')
    content = {"config": {}, "inputs": {}, "folder": str(tmp_path), "runtime": {"device": "cpu"}, "extra": {}}
    (tmp_path / "resolved.json").write_text(json.dumps(content))
    rank = subprocess.Popen(
        [sys.executable, "-m", "childish", str(tmp_path / "resolved.json")],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", commands.ALIVE: str(tmp_path / "alive.json")},
        stdin=subprocess.DEVNULL,
    )
    wait_for(lambda: bool(list(tmp_path.glob("pid-*"))), rank)
    (tmp_path / "alive.json").unlink()
    assert rank.wait(timeout=120) == 1


# Of the parent

PARENT = """
import signal, sys
def end(*_):  # as Prefect does in a flow that is cancelled
    raise BaseException
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
from pathlib import Path
from selftrain.config import RuntimeConfig
from selftrain.launch.launch import launch
from selftrain.stage import Context

folder = Path(sys.argv[1])
runtime = RuntimeConfig(processes=int(sys.argv[2]))
launch("childish", Context({}, {}, folder, runtime, lambda **_: None), distributed=runtime.processes > 1)
"""
SLEEPER = """
import os, time
from pathlib import Path
def work(child):
    Path(child.folder, f"pid-{os.getpid()}").touch()
    time.sleep(600)
child_main(work)
"""


def wait_for(true: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Wait while `process` lives."""
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("processes", "kind"),
    [
        (1, signal.SIGKILL),
        (2, signal.SIGKILL),
        (1, signal.SIGINT),
        (2, signal.SIGINT),
        (2, signal.SIGTERM),
    ],
)
def test_children_end_with_their_parent(tmp_path: Path, processes: int, kind: signal.Signals):
    (tmp_path / "childish.py").write_text(HEAD + SLEEPER)
    folder = tmp_path / "work"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), str(processes)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(list(folder.glob("pid-*"))) == processes, parent)
    children = [int(path.name[4:]) for path in folder.glob("pid-*")]
    assert all(alive(pid) for pid in children)
    parent.send_signal(kind)
    parent.wait(timeout=120)
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in children)


@pytest.mark.parametrize("other", [False, True])
def test_waiting_for_machines_ends_with_its_step(tmp_path: Path, other: bool):
    """Machines that do not come, and those that another job has."""
    stop, waits, left = Stop(), threading.Event(), list[BaseException]()
    runtime = RuntimeConfig(nodes=2, rendezvous="here:1")
    job = Job(attempt="1", module="selftrain.training.sft", resolved=tmp_path / "x", runtime=runtime)

    def wait() -> None:
        STOP.set(stop)
        try:
            with gather(tmp_path, job, lambda _: waits.set()):
                pass
        except BaseException as error:
            left.append(error)

    with (tmp_path / "lock").open("w") as file:
        if other:
            fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        assert waits.wait(20)
        stop.stop("the run ends")
        thread.join(5)
        assert [type(error) for error in left] == [Stopped]
    assert not list(tmp_path.glob("*.json"))
