"""Best of n: a generator writes n programs, a sandbox may drop some, a reranker picks one.

from selftrain import Generator, Picker, best_of_n
found = best_of_n(Generator.load("runs/demo"), Picker.load("runs/demo"), prompt, n=16, filter="compile", language="py")
found.pick, found.scores, found.verdicts, found.seconds
"""

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

from sandbox.languages import language as row_of
from sandbox.programs import assemble
from sandbox.verdicts import Verdict
from selftrain.errors import SandboxFailed, UsageError
from selftrain.generate import Sampled
from selftrain.generate.generator import Generator
from selftrain.problems.chat import source_of
from selftrain.problems.examples import example_tests
from selftrain.rerank.normal import language_name, normal
from selftrain.rerank.picker import Picker
from selftrain.rerank.reranker import Ranking
from selftrain.stage import Judge
from selftrain.units import none_of

LOGGER = logging.getLogger("selftrain")

Filter = Literal["compile", "examples"]

ENDINGS = {
    "cpp": "}\nint main() {}\n",
    "java": "    }\n    public static void main(String[] args) {}\n}\n",
    "cs": "    }\n    public static void Main(string[] args) {}\n}\n",
    "rs": "}\nfn main() {}\n",
    "sh": "}\n",
}
"""Language -> what makes a program of a completion without tests, where MultiPL-E's tests close the function."""


STEPS = ("sample", "filter", "rank")


class Ranks(Protocol):
    """A `Reranker` or a `Picker`."""

    def rank(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> Ranking:
        """The ranking of `candidates`."""
        ...


@dataclass(frozen=True)
class Best:
    """The best of n completions.

    pick        text of the best one
    best        its index
    candidates  [n] the completions, as they were sampled
    scores      [n] their scores
    verdicts    [n] the sandbox's verdicts on what the filter ran; empty without a filter
    none_passed whether no completion passed the filter, so that all were picked from
    seconds     wall-clock time of each step: `sample`, `filter` and `rank`
    """

    pick: str
    best: int
    candidates: tuple[Sampled, ...]
    scores: tuple[float, ...]
    verdicts: tuple[Verdict, ...]
    none_passed: bool
    seconds: Mapping[str, float]


def best_of_n(
    generator: Generator,
    reranker: Ranks,
    prompt: str,
    n: int = 16,
    filter: Filter | None = None,
    sandbox: Judge | None = None,
    language: str | None = None,
    tests: str = "",
    **sampling: Any,
) -> Best:
    """Sample `n` completions of `prompt` and pick the one with the highest score among those that pass the filter.

    filter    compile: those that the compiler, or the interpreter's parser, accepts; examples: those that pass the examples that
              the prompt shows; None: all
    sandbox   an open `sandbox.client.Sandbox` for the filter; None opens one for this call
    language  of the programs, such as py; a filter and a chat model must be told
    tests     the problem's tests: the filter `examples` takes the form of assertions from them in languages other than Python,
              and `compile` the end of a program in languages that it does not know
    sampling  further arguments of `Generator.sample`

    >>> found = best_of_n(Generator.load(FOLDER), Reranker.load(RERANKER), "def one():\\n", n=4, max_new_tokens=8)
    >>> found.scores[found.best] == max(found.scores), found.pick == found.candidates[found.best].text
    (True, True)

    Raises UsageError where the filter cannot be used or no completion can be ranked, SandboxFailed where the sandbox cannot judge.
    """
    language = language_name(language)
    behind = _behind(filter, prompt, language, tests)
    clock = [time.monotonic()]
    candidates = generator.sample(prompt, n, language=language, **sampling)
    texts = list(dict.fromkeys(one.text for one in candidates))
    clock.append(time.monotonic())
    verdicts: dict[str, Verdict] = {}
    if filter is not None and language is not None:
        with _opened(sandbox) as judge:
            verdicts = _judged(judge, prompt, texts, language, behind, generator)
    clock.append(time.monotonic())
    scores = dict(zip(texts, _ranked(reranker, generator, prompt, candidates, language).scores, strict=True))
    clock.append(time.monotonic())
    passing = [text for text in texts if filter is None or _passes(filter, verdicts[text])]
    if not passing:
        LOGGER.warning(
            "%s passes the filter %r; the pick is among all", none_of(len(candidates), "completion"), filter
        )
    pick = max(passing or texts, key=lambda text: scores[text])
    return Best(
        pick=pick,
        best=[one.text for one in candidates].index(pick),
        candidates=tuple(candidates),
        scores=tuple(scores[one.text] for one in candidates),
        verdicts=tuple(verdicts[one.text] for one in candidates) if verdicts else (),
        none_passed=not passing,
        seconds=dict(zip(STEPS, (end - start for start, end in pairwise(clock)), strict=True)),
    )


def _ranked(
    reranker: Ranks, generator: Generator, prompt: str, candidates: Sequence[Sampled], language: str | None
) -> Ranking:
    """The ranking of the distinct texts of `candidates`, by the log-probabilities that they were sampled with if those are of the
    picker's own generator; of several copies of a text by the highest."""
    means: dict[str, float] = {}
    for one in candidates:
        mean = math.nan if one.mean_logprob is None else one.mean_logprob
        means[one.text] = max(mean, means.get(one.text, mean))
    texts, logprobs = list(means), list(means.values())
    if (
        isinstance(reranker, Picker)
        and "sft" in reranker.run["stages"]
        and all(map(math.isfinite, logprobs))
        and generator.folder is not None
        and generator.folder.resolve() == reranker.likelihood.folder.resolve()
    ):
        return reranker.rank(prompt, texts, language, mean_logprobs=logprobs)
    return reranker.rank(prompt, texts, language)


def _behind(filter: Filter | None, prompt: str, language: str | None, tests: str) -> str:
    """What follows a completion in the program that the filter runs."""
    if filter is None:
        return ""
    if filter not in get_args(Filter):
        raise UsageError(f"filter {filter!r}: expected {' or '.join(map(repr, get_args(Filter)))} or None")
    if language is None:
        raise UsageError(f"filter={filter!r} runs programs: say in which language, for example language='py'")
    if filter == "examples":
        shown = example_tests(prompt, language, tests)
        if not shown:
            raise UsageError(
                "the prompt shows no examples that can be read"
                + (
                    ""
                    if tests or language == "py"
                    else "; give the problem's tests, whose form the examples take"
                )
                + "; filter='compile' or None needs none"
            )
        return shown
    if tests or language in ENDINGS:
        return tests or ENDINGS[language]
    if row_of(language).closing:
        raise UsageError(
            f"filter='compile' needs the problem's tests in {language}, which end the program: give tests="
        )
    return ""


def _passes(filter: Filter, verdict: Verdict) -> bool:
    return verdict is Verdict.passed if filter == "examples" else verdict is not Verdict.compile_error


def _judged(
    sandbox: Judge, prompt: str, texts: Sequence[str], language: str, behind: str, generator: Generator
) -> dict[str, Verdict]:
    """Text -> the verdict on its program. Raises SandboxFailed where there is none."""
    forms = [normal(prompt, text, language, style=generator.style) for text in texts]
    programs = [
        assemble(language, *source_of(*form, generator.style), behind).program(str(at), language)
        for at, form in enumerate(forms)
    ]
    found = {}
    for result in sandbox.run(programs):
        if not result.verdict.is_label:
            raise SandboxFailed(f"the sandbox itself failed on a completion: {result.stderr[-300:]}")
        found[texts[int(result.id)]] = result.verdict
    return found


@contextmanager
def _opened(sandbox: Judge | None) -> Iterator[Judge]:
    """`sandbox`, or one that is open as long as this context."""
    from sandbox.client import Sandbox
    from sandbox.errors import SandboxError

    try:
        if sandbox is not None:
            yield sandbox
            return
        with Sandbox("auto", workers=os.cpu_count() or 1) as opened:
            yield opened
    except SandboxError as error:
        raise UsageError(str(error)) from error
