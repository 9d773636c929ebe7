"""Runs every stage that uses a GPU on this machine, without Prefect, and compares what it finds with a CPU, the plan and the card.

    python -m infra.gpu_check --out gpu.json            # some ten minutes on a card with 80 GB
    python -m infra.gpu_check --tiny                    # on a CPU, with a tiny model: does the check itself work?

The stages run as in a run, in child processes under torchrun and DeepSpeed, on models of 0.5B and 1.5B parameters with random
weights. For each of them it prints tokens per second, the share of the card's peak (FLOPs as `selftrain plan` counts them, recomputed
activations included), and its memory beside the plan's. Results are compared with float32 on a CPU, within TOLERANCE.

Exit status: 0 where all stages ran and all results agree, 1 otherwise. Missed goals change nothing in it.
"""

import argparse
import importlib.util
import json
import math
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from infra.gpu_cases import DISTINCT, FULL, TINY, Case, Cases
from infra.gpu_measure import peak_memory, peak_of
from selftrain.config import LoraConfig
from selftrain.errors import SelftrainError
from selftrain.records import Candidate, Pair, Problem, read_records
from selftrain.stage import Context, Outcome

TOLERANCE = {"loss": 0.01, "logprob": 0.05, "score": 0.05, "entropy": 0.02, "kl": 0.01, "resumed": 0.01}
"""Largest differences from float32 on a CPU: of a loss and of an entropy as a share; of a token's mean log-probability and of the KL
to an equal reference in nats; of a score, whose spread is about 1; of a resumed run's last loss, as a share."""
GOALS = {"sft": 0.35, "reward": 0.35}
"""Share of the peak that a stage of the largest size should reach."""
PLANNED = 0.15
"""Largest share by which the plan's memory should be off."""


@dataclass
class Row:
    """What one case showed.

    seconds  of the whole stage, start of the processes included
    shares   phase -> share of the peak; empty on a CPU
    agrees   what was compared with the CPU or another run -> (found, expected, whether they agree)
    """

    name: str
    seconds: float = 0.0
    tokens_per_second: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    planned: int = 0
    agrees: dict[str, tuple[float, float, bool]] = field(default_factory=dict)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the stage ran and its results agree."""
        return not self.error and all(agrees for _, _, agrees in self.agrees.values())

    def compare(
        self, what: str, found: float, expected: float, tolerance: float, share: bool = False
    ) -> None:
        """Note whether two numbers agree; `share`: the tolerance is a share of the expected one."""
        within = abs(found - expected) <= tolerance * (abs(expected) if share else 1)
        self.agrees[what] = (found, expected, within and math.isfinite(found))

    def line(self) -> str:
        """The row for people."""
        rate = "" if self.tokens_per_second is None else f"{self.tokens_per_second:,.0f} tokens/s"
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        memory = f"{self.memory / 2**30:.2f} GiB, planned {self.planned / 2**30:.2f}" if self.memory else ""
        compared = ", ".join(
            f"{what} {found:.4g} / {expected:.4g}{'' if fine else ' DIFFERS'}"
            for what, (found, expected, fine) in self.agrees.items()
        )
        parts = (
            f"{self.seconds:.0f} s",
            rate,
            shares and f"of the peak: {shares}",
            memory,
            compared,
            self.error,
        )
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: " + "; ".join(part for part in parts if part)


class Check:
    """Runs the cases of one size; the rows are in `rows`. `peak`: FLOP/s of one card in bf16; None on a CPU."""

    def __init__(self, cases: Cases, size: str, peak: float | None, only: set[str]) -> None:
        self.cases, self.size, self.peak, self.only = cases, size, peak, only
        self.rows: list[Row] = []

    def run(self, further: bool) -> None:
        """Run all cases. `further`: also the ones that are the same at every size: resuming, and training under DeepSpeed."""
        cases, lora = self.cases, LoraConfig()
        self.case("sft", cases.sft, self.check_sft)
        self.case("reward", cases.reward, self.check_reward)
        self.case("sample", cases.sample, self.check_sample)
        if importlib.util.find_spec("vllm") is not None:
            self.case("sample vllm", partial(cases.sample, "vllm"), self.check_sample)
        self.case("score", cases.score, self.check_score)
        self.case("ppo lora", partial(cases.ppo, lora=lora), self.check_ppo)
        self.case("ppo", cases.ppo, self.check_ppo)
        if further:
            self.case("resume", partial(cases.sft, steps=3), self.check_resume)
            self.case("sft lora", partial(cases.sft, lora=lora), self.check_sft)
            for zero in ("zero2", "zero3"):
                self.case(f"sft {zero}", partial(cases.sft, zero), self.check_sft)
                self.case(f"ppo {zero}", partial(cases.ppo, zero), self.check_ppo)

    def case(
        self, name: str, made: Callable[[], Case], check: Callable[[Row, Case, Outcome, Path], None]
    ) -> None:
        """Run one case, if it is asked for, and check its result. Prints the row."""
        if self.only and name not in self.only:
            return
        row, folder = Row(f"{self.size} {name}"), self.cases.folder / "work"
        try:
            case = made()
            outcome = self.measure(row, case, folder)
            check(row, case, outcome, folder)
        except Exception as error:  # such as torch's for no memory: the other cases still tell something
            row.error = f"{type(error).__name__}: {error}"
            if not isinstance(error, SelftrainError):
                traceback.print_exc()
        shutil.rmtree(folder, ignore_errors=True)
        self.rows.append(row)
        print(row.line(), flush=True)

    def measure(self, row: Row, case: Case, folder: Path) -> Outcome:
        """Run the stage into `folder`, and note in `row` its time, speed and memory."""
        ticks: list[tuple[float, float]] = []
        context = _context(case, folder, lambda done, **_: ticks.append((time.monotonic(), done)))
        start = time.monotonic()
        with peak_memory(case.runtime.device) as used:
            outcome: Outcome = case.stage(context)
        row.seconds = time.monotonic() - start
        row.memory, row.planned = used[0], case.memory.total
        spent = outcome.metrics.get("seconds")
        seconds = {name: spent[name] for name in case.flops} if isinstance(spent, dict) else {}
        if not seconds and len(ticks) > 1:  # the first unit is not counted, which starts caches and kernels
            warm = (ticks[-1][0] - ticks[0][0]) / (ticks[-1][1] - ticks[0][1])
            seconds = dict.fromkeys(case.flops, warm)
        if seconds:
            row.tokens_per_second = case.tokens / next(iter(seconds.values()))
        if self.peak:
            peak = self.peak * case.runtime.processes
            row.shares = {name: case.flops[name] / took / peak for name, took in seconds.items()}
        return outcome

    # Comparisons with a CPU

    def check_sft(self, row: Row, case: Case, outcome: Outcome, folder: Path) -> None:
        """The loss of the first step, before any update, is that of the model on a CPU."""
        problems = _problems(self.cases, "sft")
        texts = [(problem.prompt, problem.response or "") for problem in problems]
        sums = self._logprobs(texts)
        tokens = self.cases.load.completion + 1
        expected = -sum(sums) / len(sums) / tokens
        row.compare("loss", outcome.metrics["curve"][0]["loss"], expected, TOLERANCE["loss"], share=True)

    def check_reward(self, row: Row, case: Case, outcome: Outcome, folder: Path) -> None:
        """The loss of the first step is that of the scores on a CPU."""
        from selftrain.rerank.reranker import Reranker

        reranker = Reranker.load(self.cases.reranker)
        losses = []
        for pair in read_records(self.cases.data / "pairs.parquet", Pair)[:DISTINCT]:
            chosen, rejected = next(
                reranker.score_many([(pair.prompt, [pair.chosen, pair.rejected])], exact=True)
            )
            losses.append(math.log1p(math.exp(rejected - chosen)))
        expected = sum(losses) / len(losses)
        row.compare("loss", outcome.metrics["curve"][0]["loss"], expected, TOLERANCE["loss"], share=True)

    def check_ppo(self, row: Row, case: Case, outcome: Outcome, folder: Path) -> None:
        """At first the policy is the reference, and its entropy is near that of its distribution on a CPU after the prompts."""
        first = outcome.metrics["curve"][0]
        row.compare("KL", first["kl"], 0.0, TOLERANCE["kl"])
        row.compare("entropy", first["entropy"], self._entropy(), TOLERANCE["entropy"], share=True)
        row.compare("policy loss", first["policy_loss"], 0.0, math.inf)

    def check_sample(self, row: Row, case: Case, outcome: Outcome, folder: Path) -> None:
        """The samples' log-probabilities are those of the model on a CPU."""
        from selftrain.models.logprobs import summed_logprobs
        from selftrain.models.models import encode_prompt

        model, tokenizer = self._generator()
        drawn = read_records(folder / "candidates.parquet", Candidate)[:DISTINCT]
        prompts = {problem.id: problem.prompt for problem in _problems(self.cases, "rl")}
        heads = [encode_prompt(tokenizer, prompts[one.problem_id]) for one in drawn]
        sums = summed_logprobs(model, heads, [one.token_ids for one in drawn])
        tokens = sum(len(one.token_ids) for one in drawn)
        found, expected = sum(one.logprob for one in drawn) / tokens, sum(sums) / tokens
        row.compare("log-probability", found, expected, TOLERANCE["logprob"])

    def check_score(self, row: Row, case: Case, outcome: Outcome, folder: Path) -> None:
        """The scores are those on a CPU in float32."""
        from selftrain.rerank.reranker import Reranker

        problem = _problems(self.cases, "rl")[0]
        pool = read_records(self.cases.data / "candidates.parquet", Candidate)
        own = [one for one in pool if one.problem_id == problem.id][:DISTINCT]
        reranker = Reranker.load(self.cases.reranker)
        expected = next(reranker.score_many([(problem.prompt, [one.completion for one in own])], exact=True))
        for one, score in zip(own, expected, strict=True):
            row.compare(f"score {one.sample}", outcome.metrics["scores"][one.id], score, TOLERANCE["score"])

    def check_resume(self, row: Row, case: Case, outcome: Outcome, folder: Path) -> None:
        """A training that is killed after its second step and started again ends with the loss of the one that was not."""
        config = case.config.model_copy(
            update={"sft": case.config.sft.model_copy(update={"checkpoint_steps": 1})}
        )
        again = self.cases.folder / "resumed"
        resumed = replace(case, config=config)
        steps: list[float] = []

        def progress(done: float, **_: Any) -> None:
            steps.append(done)
            if steps == [1.0, 2.0]:
                raise _Killed  # `launch` then kills the child

        try:
            resumed.stage(_context(resumed, again, progress))
        except _Killed:
            found = resumed.stage(_context(resumed, again, progress))
            last, expected = (one.metrics["curve"][-1]["loss"] for one in (found, outcome))
            row.compare("last loss", last, expected, TOLERANCE["resumed"], share=True)
            row.compare("step that it goes on with", steps[2], 2.5, 0.5)
        else:
            row.error = "the training was not killed"
        shutil.rmtree(again)

    def _generator(self) -> tuple[Any, Any]:
        from selftrain.models.models import load_generator, load_tokenizer

        return load_generator(self.cases.generator).eval(), load_tokenizer(self.cases.generator)

    def _logprobs(self, texts: list[tuple[str, str]]) -> list[float]:
        from selftrain.models.logprobs import summed_logprobs
        from selftrain.models.models import encode_completions, encode_prompt

        model, tokenizer = self._generator()
        heads = [encode_prompt(tokenizer, prompt) for prompt, _ in texts]
        return summed_logprobs(model, heads, encode_completions(tokenizer, [text for _, text in texts]))

    def _entropy(self) -> float:
        """Mean entropy, in nats, of the generator's distribution before each token of the prompts."""
        import torch

        from selftrain.models.models import encode_prompt

        model, tokenizer = self._generator()
        ids = [encode_prompt(tokenizer, problem.prompt) for problem in _problems(self.cases, "rl")]
        with torch.inference_mode():
            logs = model(torch.tensor(ids)[:, :32]).logits.float().log_softmax(-1)
        return float(-(logs.exp() * logs).sum(-1).mean())


class _Killed(Exception):
    """Ends a training, as a kill would."""


def _problems(cases: Cases, split: str) -> list[Problem]:
    """The split's different problems."""
    every = read_records(cases.data / "problems.parquet", Problem)
    return [problem for problem in every if problem.split == split][:DISTINCT]


def _context(case: Case, folder: Path, progress: Callable[..., None]) -> Context:
    folder.mkdir(exist_ok=True)
    return Context(case.config, case.inputs, folder, case.runtime, progress)


def missed(rows: list[Row], size: str) -> list[str]:
    """Lines on the goals that were missed; `size`: the largest."""
    lines = []
    for row in rows:
        for phase, goal in GOALS.items():
            if row.name == f"{size} {phase}" and row.shares and row.shares[phase] < goal:
                lines.append(f"{row.name}: {row.shares[phase]:.0%} of the peak; the goal is {goal:.0%}")
        if row.memory and abs(row.memory / row.planned - 1) > PLANNED:
            lines.append(
                f"{row.name}: {row.memory / row.planned:.2f} of the plan's memory; the goal is within {PLANNED:.0%}"
            )
    return lines


def main(arguments: list[str]) -> int:
    """Run the check; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.gpu_check", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny model on a CPU")
    parser.add_argument(
        "--sizes", nargs="+", default=["0.5B", "1.5B"], choices=["0.5B", "1.5B"], help="sizes of the models"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="CASE",
        help='cases to run, such as sft, "ppo lora", "sft zero3", score, resume',
    )
    parser.add_argument(
        "--peak", type=float, help="the card's peak in bf16, TFLOP/s, where it is not known by name"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where models are put meanwhile (30 GB); default: the folder for temporary files",
    )
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args(arguments)
    import torch

    card, count = "cpu", 1
    if not given.tiny:
        if not torch.cuda.is_available():
            print(
                "no CUDA device is visible to PyTorch here (make setup GPU=1); --tiny runs on a CPU",
                file=sys.stderr,
            )
            return 2
        card, count = torch.cuda.get_device_name(0), torch.cuda.device_count()
        count = min(8, 1 << (count.bit_length() - 1))  # batches are split evenly over a power of two
    peak = given.peak * 1e12 if given.peak else peak_of(card)
    if peak is None and not given.tiny:
        print(
            f"the peak of {card} is not known: give it with --peak, else no shares are shown", file=sys.stderr
        )
    rows: list[Row] = []
    sizes = ["tiny"] if given.tiny else given.sizes
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=given.folder, prefix="gpu-check-") as folder:
            cases = Cases(
                size, TINY if given.tiny else FULL, Path(folder), "cpu" if given.tiny else "cuda", count
            )
            check = Check(cases, size, peak, set(given.only))
            check.run(further=size == sizes[0])
            rows += check.rows
    goals = [] if given.tiny else missed(rows, sizes[-1])
    print(
        "\n".join(
            ["", f"{card} x {count}, torch {torch.__version__}", *(f"goal missed: {line}" for line in goals)]
        )
    )
    if given.out:
        found = {"card": card, "count": count, "torch": torch.__version__, "peak": peak, "missed": goals}
        given.out.write_text(
            json.dumps(found | {"rows": [vars(row) | {"ok": row.ok} for row in rows]}, indent=1)
        )
    return 0 if rows and all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
