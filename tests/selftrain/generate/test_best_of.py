"""Tests of `best_of_n`: its filters, its pick, and the doctests of the Python interface."""

import doctest
import importlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.verdicts import Program, Result, Verdict
from selftrain import Generator, Picker, Ranking, Reranker, best_of_n
from selftrain.errors import SandboxFailed, UsageError
from selftrain.generate import Sampled
from selftrain.rerank.likelihood import Likelihood
from selftrain.rerank.picker import Picked

PROMPT = '''def add(n: int) -> int:
    """ Add two.
    >>> add(1)
    3
    """
'''
TEXTS = ["    return n + 2\n", "    return (n\n", "    return n + 1\n", "    return n + 2\n"]
SCORES = {TEXTS[0]: 1.0, TEXTS[1]: 3.0, TEXTS[2]: 2.0}


def writes(texts: Sequence[str]) -> Generator:
    """A generator that writes `texts`."""
    return Generator(lambda *_: [[Sampled(text, -1.0, 3, "stop") for text in texts]])


class Fixed:
    """Ranks by `SCORES`, and keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...], str | None]] = []

    def rank(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> Ranking:
        """The ranking."""
        self.asked.append((prompt, tuple(candidates), language))
        return Ranking(tuple(SCORES[text] for text in candidates))


def test_without_a_filter_the_highest_score_is_picked_and_each_text_is_ranked_once():
    ranker = Fixed()
    found = best_of_n(writes(TEXTS), ranker, PROMPT, n=4)
    assert (found.pick, found.best) == (TEXTS[1], 1)
    assert found.scores == (1.0, 3.0, 2.0, 1.0)
    assert (found.verdicts, found.none_passed) == ((), False)
    assert [one.text for one in found.candidates] == TEXTS
    assert list(found.seconds) == ["sample", "filter", "rank"]
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert ranker.asked == [(PROMPT, tuple(TEXTS[:3]), None)]


class OfRun(Picker):
    """A picker of a run whose generator is in `folder`, which keeps the log-probabilities that it is given."""

    def __init__(self, folder: Path) -> None:
        self.run, self.likelihood = {"stages": {"sft": {}}}, Likelihood({}, ())
        self.likelihood.folder = folder
        self.given: list[Sequence[float] | None] = []

    def rank(
        self,
        prompt: str,
        candidates: Sequence[str],
        language: str | None = None,
        mean_logprobs: Sequence[float] | None = None,
        exact: bool = False,
    ) -> Picked:
        """The ranking."""
        self.given.append(mean_logprobs)
        return Picked(tuple(SCORES[text] for text in candidates))


def test_a_picker_gets_the_log_probabilities_of_its_own_generator_and_of_no_other(tmp_path: Path):
    picker = OfRun(tmp_path / "own")
    sampled = [
        Sampled(text, mean, 3, "stop") for text, mean in zip(TEXTS, (-2.0, -0.5, -1.0, -1.5), strict=True)
    ]
    for folder in (tmp_path / "own", tmp_path / "other", None):
        best_of_n(Generator(lambda *_: [sampled], folder=folder), picker, PROMPT, n=4)
    unknown = [Sampled(text, None, 3, "stop") for text in TEXTS]
    best_of_n(Generator(lambda *_: [unknown], folder=tmp_path / "own"), picker, PROMPT, n=4)
    assert picker.given == [[-1.5, -0.5, -1.0], None, None, None], "of the two copies the likelier"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that isolates nothing; the programs here are our own."""
    with Sandbox("process") as opened:
        yield opened


def test_compile_leaves_out_what_the_parser_rejects(sandbox: Sandbox):
    found = best_of_n(writes(TEXTS), Fixed(), PROMPT, filter="compile", sandbox=sandbox, language="python")
    assert found.verdicts == (Verdict.passed, Verdict.compile_error, Verdict.passed, Verdict.passed)
    assert (found.pick, found.best, found.none_passed) == (TEXTS[2], 2, False)


def test_examples_leaves_out_what_fails_the_examples_of_the_prompt(sandbox: Sandbox):
    found = best_of_n(writes(TEXTS), Fixed(), PROMPT, filter="examples", sandbox=sandbox, language="py")
    assert found.verdicts[0] is found.verdicts[3] is Verdict.passed
    assert found.verdicts[1:3] == (Verdict.compile_error, Verdict.wrong_answer)
    assert (found.pick, found.best) == (TEXTS[0], 0)


def test_where_none_passes_it_says_so_and_picks_among_all(sandbox: Sandbox, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "selftrain"):
        found = best_of_n(
            writes(TEXTS[1:3]), Fixed(), PROMPT, filter="examples", sandbox=sandbox, language="py"
        )
    assert (found.pick, found.none_passed) == (TEXTS[1], True)
    assert "none of the 2 completions passes the filter 'examples'" in caplog.text


def test_a_program_in_markdown_is_judged_as_the_completion_that_it_is(sandbox: Sandbox):
    whole = f"Sure:\n```python\n{PROMPT}{TEXTS[0]}```\n"
    SCORES[whole] = 0.0
    found = best_of_n(writes([whole]), Fixed(), PROMPT, filter="examples", sandbox=sandbox, language="py")
    assert found.verdicts == (Verdict.passed,)


BASH = "#!/bin/bash\n# Adds two.\nadd() {\n"


def test_a_language_whose_tests_close_the_function_is_closed_without_tests(sandbox: Sandbox):
    texts = ["    echo $(( $1 + 2 ))", "    if echo; fi; ("]
    ranker = Fixed()
    SCORES.update(dict.fromkeys(texts, 0.0))
    found = best_of_n(writes(texts), ranker, BASH, filter="compile", sandbox=sandbox, language="sh")
    assert found.verdicts == (Verdict.passed, Verdict.compile_error)


def test_a_filter_that_cannot_be_used_is_said():
    given = (writes(TEXTS), Fixed(), "def add(n):\n")
    with pytest.raises(UsageError, match="filter 'tests': expected 'compile' or 'examples' or None"):
        best_of_n(*given, filter="tests", language="py")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown language 'klingon'"):
        best_of_n(*given, language="klingon")
    with pytest.raises(UsageError, match="say in which language"):
        best_of_n(*given, filter="compile")
    with pytest.raises(UsageError, match="the prompt shows no examples that can be read; filter='compile'"):
        best_of_n(*given, filter="examples", language="py")
    with pytest.raises(UsageError, match="give the problem's tests, whose form"):
        best_of_n(*given, filter="examples", language="js")
    with pytest.raises(UsageError, match="needs the problem's tests in go"):
        best_of_n(*given, filter="compile", language="go")


class Broken:
    """A sandbox that fails."""

    backend = "broken"

    def identity(self, language: str) -> str:
        """None."""
        return language

    def run(self, programs: Iterable[Program]) -> Iterator[Result]:
        """Its failures."""
        for program in programs:
            yield Result(program.id, Verdict.sandbox_error, stderr="no room")


def test_a_failure_of_the_sandbox_is_no_verdict():
    with pytest.raises(SandboxFailed, match="no room"):
        best_of_n(writes(TEXTS), Fixed(), PROMPT, filter="compile", sandbox=Broken(), language="py")


@pytest.mark.parametrize("name", ["rerank.reranker", "generate.generator", "generate.best_of"])
def test_the_examples_in_docstrings_are_true(name: str, generator: Path, reranker: Path):
    module = importlib.import_module(f"selftrain.{name}")
    names = {"FOLDER": generator, "RERANKER": reranker, "Generator": Generator, "Reranker": Reranker}
    found = doctest.testmod(module, extraglobs=names | {"best_of_n": best_of_n})
    assert found.attempted > 0
    assert found.failed == 0
