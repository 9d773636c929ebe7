"""Fixtures for the tests of the report: an invented run with scores, a drifting generator, and hostile texts."""

import zlib

import numpy as np
import pytest

from sandbox.verdicts import Verdict
from selftrain.evaluation.comparisons import evaluate_pools
from selftrain.evaluation.pools import Pool, PoolProblem, with_logprob
from selftrain.report.page import ReportInputs

HOSTILE = (
    "</script><script>document.title = 'owned'</script>",
    "<!--run-->not the run line<!--/run--> <img src=x onerror=\"document.title='owned'\">",
    "]]> &lt; &amp; ' \" ` \\u003c \\ ${1} {{ 7 * 7 }} {% raw %}",
    "null \x00 bell \x07 escape \x1b[31m rubout \x7f",
    "right-to-left \u202e override \u2066 isolate, line \u2028 separator, lone \ud800 surrogate, \U0001f600",
)
BAD = (Verdict.wrong_answer, Verdict.compile_error, Verdict.runtime_error, Verdict.timeout)


def made_pool(name: str, size: int = 24, n: int = 8, *, skill: float = 1.0, shift: float = 0.0) -> Pool:
    """`size` problems in py and sh in turn; rm-1 scores pass over fail by `skill`, rm-2 by twice that."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))

    def problem(i: int) -> PoolProblem:
        right = rng.random(n) < rng.choice([0.0, 0.2, 0.5, 0.9])
        programs = [f"    return {'sum' if good else 'max'}(xs)[{rng.integers(3)}:]\n" for good in right]
        programs[0] = HOSTILE[i % len(HOSTILE)]
        verdicts = [Verdict.passed if good else BAD[rng.integers(len(BAD))] for good in right]
        noise = rng.normal(size=(3, n))
        scores = {
            "rm-1": shift + skill * right + noise[0],
            "rm-2": 2 * skill * right + noise[1],
            "rm-2~shuffled": noise[2],
        }
        return PoolProblem(
            id=f"bank_{i // 2:03}_{'py' if i % 2 else 'sh'}",
            task=f"bank_{i // 2:03}",
            language="py" if i % 2 else "sh",
            prompt=f'def f(xs):\n    """Problem {i}. {HOSTILE[0]}"""\n',
            completions=tuple(programs),
            verdicts=tuple(verdicts),
            logprob=rng.normal(size=n) * 4 + 2 * right - 12,
            n_tokens=rng.integers(8, 30, n),
            examples_passed=None,
            scores=scores,
            greedy_passed=bool(right.mean() > rng.random()),
        )

    return with_logprob(Pool(name, tuple(problem(i) for i in range(size))), {"rm-1": 1.0, "rm-2": 0.5})


def made_inputs(size: int = 24, n: int = 8) -> ReportInputs:
    """A report of two rounds."""
    pools = [
        made_pool("sft", size, n),
        made_pool("ppo-1", size, n, skill=0.4, shift=1.5),
        made_pool("ppo-2", size, n, skill=0.8, shift=0.5),
    ]
    rng = np.random.default_rng(0)
    steps = np.arange(1, 21)
    return ReportInputs(
        name="made-up",
        config={"seed": 1, "bank": {"languages": ["py", "sh"]}, "name": HOSTILE[0]},
        problems={"source": "bank", "train": 4400, "validation": 50, "eval": size},
        seconds={
            "prepare": 3.2,
            "sft": 131.0,
            "sample-0": 14.5,
            "train_reward-1": 75.4,
            "ppo-1": 62.0,
            "evaluate": 44.1,
        },
        pools=pools,
        evaluation=evaluate_pools(pools, resamples=200),
        ppo={
            f"ppo-{r}": [
                {
                    "step": int(step),
                    "score": float(r * 0.1 * step + rng.normal() / 5),
                    "reward": float(r * 0.09 * step + rng.normal() / 5),
                    "kl": float(0.01 * step / r + abs(rng.normal()) / 100),
                    "entropy": float(0.8 - 0.01 * step),
                }
                for step in steps
            ]
            for r in (1, 2)
        },
        pairs={
            "1": {"easy": 310, "on_policy": 720},
            "2": {"easy": 120, "on_policy": 411, "hard_negative": 655},
        },
        chosen="rm-2+logprob",
        logprob_weights={"rm-1": 1.0, "rm-2": 0.5},
        calibration={"rm-2": {"scale": 0.693147, "offset": -1.25, "ece_raw": 0.2034, "ece": 0.0171}},
        notes=(
            "Problems are from the built-in bank: data for exercise, never a claim about real-world code.",
        ),
    )


@pytest.fixture
def inputs() -> ReportInputs:
    return made_inputs()
