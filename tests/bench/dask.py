"""Benchmark: how much faster two machines run the stages `sample` and `execute` with Dask than one machine.

The machines are network namespaces of this machine (root only). They share a store on an S3 server and cache what they read
from it separately. Each machine uses one sampling process and one sandbox worker, so two machines use two cores. The problems
are the demo's; the generator has the demo's shape and random weights. The times are those of the stages in a flow: parts, store
and merging.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from selftrain.config import BankConfig, ModelConfig
from selftrain.models.models import make_tiny, train_tokenizer
from selftrain.problems.read import read_problems
from selftrain.records import Problem, write_records
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store.store import Store
from tests.cluster import cluster
from tests.command import ROOT, prefect_server
from tests.machines import HUB, around_here, forwarded
from tests.servers import seaweed

REPEATS = 1  # each run takes minutes
PROBLEMS, EACH = 240, 16

FLOW = """
import json, os, sys
from prefect import flow
from selftrain.config import RunConfig
from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tasks.stages import execute
from tasks.prefect import PrefectRun
from tasks.stages import sample

@flow
def shared(url, address, seed, languages):
    config = RunConfig(
        store=url,
        seed=seed,
        problems={"source": "bank", "languages": languages},
        sample={"rl": int(sys.argv[5]), "shard": 15},
        execute={"shard": 240},
        runtime={"backend": "process", "workers": 1, "processes": 1, "dask": address},
    )
    run = PrefectRun(config, Store(url))
    problems = ArtifactRef("prepare", "made")
    candidates = sample(run, problems, ArtifactRef("sft", "made"), "bench")
    executions = execute(run, problems, candidates, "bench")
    run.complete()
    return [candidates, executions]

made = shared(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split())
print(json.dumps([Store(sys.argv[1]).manifest(ref)["seconds"] for ref in made]))
"""


def main() -> None:
    """Measure and print."""
    if os.geteuid() != 0:
        print("skipped: only root can make network namespaces")
        return
    languages = ("py", "sh")
    sizes = {"sft": 200, "rl": PROBLEMS // len(languages), "validation": 1, "test": 1}
    problems = read_problems(BankConfig(sizes=sizes, languages=languages))
    texts = [text for p in problems if p.response for text in (p.prompt, p.response)]
    tokenizer = train_tokenizer(texts, 1024)
    model = make_tiny(ModelConfig(hidden_size=128, layers=4, heads=4), tokenizer)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        s3 = stack.enter_context(seaweed(folder / "s3"))
        store = Store(s3.store(), folder / "here", s3.options)

        def prepared(path: Path) -> Outcome:
            write_records(path / "problems.parquet", problems, Problem)
            return Outcome("")

        def generator(path: Path) -> Outcome:
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
            return Outcome("")

        store.build(ArtifactRef("prepare", "made"), {}, prepared)
        store.build(ArtifactRef("sft", "made"), {}, generator)
        (folder / "prefect").mkdir()
        server = stack.enter_context(prefect_server(folder / "prefect"))
        machines = stack.enter_context(around_here())
        for url in (s3.url, server.url):
            stack.enter_context(forwarded(urlsplit(url).port))
        there = replace(s3, url=s3.url.replace("127.0.0.1", HUB)).environment
        there["PREFECT_API_URL"] = server.url.replace("127.0.0.1", HUB)
        found: dict[str, list[list[float]]] = {}
        for names in ("a", "ab"):
            workers = stack.enter_context(cluster(folder / names, HUB))
            for name in names:
                workers.add(name, machines, XDG_CACHE_HOME=str(folder / name), **there)
            found[workers.address] = []
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "flow")} | there
        for repeat in range(REPEATS + 1):  # the first warms up: workers import, the disk is read
            for at, address in enumerate(found):
                seed = 2 * repeat + at  # nothing is found made, no verdict is known
                arguments = (store.url, address, str(seed), " ".join(languages), str(EACH))
                done = subprocess.run(
                    [sys.executable, "-c", FLOW, *arguments],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                found[address].append(json.loads(done.stdout.splitlines()[-1]))
    alone, together = (runs[1:] for runs in found.values())
    for at, stage in enumerate(("sample", "execute")):
        before, after = (statistics.median(run[at] for run in runs) for runs in (alone, together))
        print(f"{stage:<8} one machine {before:.1f} s, two {after:.1f} s: {before / after:.2f} times as fast")
