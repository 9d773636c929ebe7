"""Tests the bank's code and tests with real toolchains: right code passes, every operation's mistake fails."""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from sandbox.client import Sandbox
from sandbox.programs import assemble
from sandbox.verdicts import Program, Verdict
from selftrain.config import WRITTEN_LANGUAGES, BankConfig
from selftrain.problems.bank.generate import Task, draw_inputs, draw_tasks, run_chain, sentence
from selftrain.problems.bank.operations import FAMILIES, OPERATIONS, Operation, Step
from selftrain.problems.bank.render import render_prompt, render_solution, render_tests
from tests.needs import need
from tests.selftrain.problems.bank.joined import JOIN, join


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox("process", workers=2) as sandbox:  # the bank's own code: nothing to be isolated from
        yield sandbox


@dataclass(frozen=True)
class Sample:
    """A program, and whether it has to pass its tests."""

    name: str
    prompt: str
    body: str
    tests: str
    passes: bool


def sample(language: str, name: str, task: Task, written: tuple[Step, ...]) -> Sample:
    """`task` answered with the code of `written`."""
    wanted = [(x, run_chain(task.steps, x)) for x in task.inputs]
    return Sample(
        name=name,
        prompt=render_prompt(
            language, task.text, task.steps[0].operation.takes, task.steps[-1].operation.gives
        ),
        body=render_solution(language, written),
        tests=render_tests(language, wanted),
        passes=all(run_chain(written, x) == y for x, y in wanted),
    )


def smallest_task(operation: Operation) -> Task:
    """A task of little more than one operation."""
    rng = random.Random(operation.name)
    ending = FAMILIES[operation.takes].endings[0]  # gives the value as it is
    chain = (operation,) if operation in FAMILIES[operation.takes].endings else (operation, ending)
    for _ in range(50):
        steps = tuple(Step(each, rng.choice(each.numbers or (0,))) for each in chain)
        if inputs := draw_inputs(steps, rng, 10):
            return Task(operation.name, "test", steps, sentence((*steps, steps[-1]), rng), inputs)
    raise AssertionError(f"no inputs tell {operation.name} from its mistake")


@functools.cache
def samples_of(language: str) -> tuple[Sample, ...]:
    """Every operation alone, right and mistaken; and longer chains of the corpus, bugs included."""
    samples: list[Sample] = []
    for operation in OPERATIONS:
        task = smallest_task(operation)
        samples.append(sample(language, operation.name, task, task.steps))
        if operation.mistake:
            wrong = (task.steps[0].mistaken(), *task.steps[1:])
            samples.append(sample(language, f"mistaken {operation.name}", task, wrong))
    corpus = BankConfig(
        families=("list", "string", "number"),
        languages=(language,),
        lengths=(2,),
        sizes={"sft": 40},
        stray_rate=0.2,
    )
    samples += [sample(language, task.id, task, task.corpus[language]) for task in draw_tasks(corpus)]
    return tuple(samples)


def test_every_operation_is_run_right_and_mistaken() -> None:
    samples = samples_of("py")
    assert {s.name for s in samples if s.passes} >= {operation.name for operation in OPERATIONS}
    mistaken = {f"mistaken {operation.name}" for operation in OPERATIONS if operation.mistake}
    assert {s.name for s in samples if not s.passes} >= mistaken
    assert 5 < sum(s.passes for s in samples if s.name.startswith("bank_")) < 35


@pytest.mark.parametrize("language", WRITTEN_LANGUAGES)
def test_right_code_passes_and_mistaken_code_fails(sandbox: Sandbox, language: str) -> None:
    need(
        not sandbox.missing_tools(language), f"{language} needs {', '.join(sandbox.missing_tools(language))}"
    )
    samples = samples_of(language)
    if language in JOIN:
        source = join(language, [f"{s.prompt}{s.body}\n{s.tests}" for s in samples])
        (result,) = sandbox.run([Program("joined", language, source)])
        assert result.verdict is Verdict.passed, result.stderr[-3000:]
        said = dict(line.split() for line in result.stdout.splitlines())
        verdicts = {int(at): {"passed": True, "failed": False}[word] for at, word in said.items()}
    else:
        results = {int(result.id): result for result in sandbox.run(programs(language, samples))}
        unclear = [r for r in results.values() if r.verdict not in (Verdict.passed, Verdict.wrong_answer)]
        assert not unclear, unclear[0]
        verdicts = {at: result.verdict is Verdict.passed for at, result in results.items()}
    assert len(verdicts) == len(samples)
    wrong = [s for at, s in enumerate(samples) if verdicts[at] != s.passes]
    assert not wrong, "\n".join(f"{s.name} should {'pass' if s.passes else 'fail'}:\n{s.body}" for s in wrong)


@pytest.mark.parametrize("language", WRITTEN_LANGUAGES)
def test_programs_are_judged_in_the_shape_of_multipl_e(sandbox: Sandbox, language: str) -> None:
    need(
        not sandbox.missing_tools(language), f"{language} needs {', '.join(sandbox.missing_tools(language))}"
    )
    samples = [s for s in samples_of(language) if s.name in ("every_space", "mistaken gt")]
    verdicts = {samples[int(r.id)].name: r.verdict for r in sandbox.run(programs(language, samples))}
    assert verdicts == {"every_space": Verdict.passed, "mistaken gt": Verdict.wrong_answer}


def programs(language: str, samples: Sequence[Sample]) -> Iterator[Program]:
    """The samples as programs, each with its place as id."""
    for at, s in enumerate(samples):
        made = assemble(language, s.prompt, s.body, s.tests)
        assert made.end_marker is not None
        yield made.program(str(at), language)
