"""Draws the bank's problems: chains of operations, with prompts and tests, and answers for SFT.

A *composition* is the set of operations in a chain, its ending included. Each composition belongs to one split, so
evaluation problems ask for combinations of operations that no training problem asks for.

The answers are untested, like scraped code: at a seeded rate, an operation has its classic mistake. For a share of the
operations (`systematic_share`) most answers are wrong (`systematic_rate`), so that a model trained on them prefers the
wrong code. Only execution shows that.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from selftrain.config import SPLITS, BankConfig
from selftrain.errors import UsageError
from selftrain.problems.bank.languages import LANGUAGES
from selftrain.problems.bank.operations import FAMILIES, Family, Operation, Step, Value
from selftrain.problems.bank.render import render_prompt, render_solution, render_tests
from selftrain.problems.splits import split_at
from selftrain.records import Problem

Chain = tuple[Operation, ...]
"""Steps, and the ending last."""


@dataclass(frozen=True)
class Task:
    """A problem before it is written in a language.

    steps     the steps of a right solution, the ending last
    text      the description in words
    inputs    arguments of the tests; for each step some input tells it from its mistake
    corpus    language -> steps of the answer, which may be mistaken; empty except in split sft
    """

    id: str
    split: str
    steps: tuple[Step, ...]
    text: str
    inputs: tuple[Value, ...]
    corpus: dict[str, tuple[Step, ...]] = field(default_factory=dict)


def generate(config: BankConfig) -> Iterator[Problem]:
    """The bank's problems: `config.sizes[split]` tasks of each split, each in every language.

    Problems of split sft have an answer. Raises `UsageError` where a split has too few compositions for so many tasks.
    """
    for task in draw_tasks(config):
        cases = [(value, run_chain(task.steps, value)) for value in task.inputs]
        for language in config.languages:
            takes, gives = task.steps[0].operation.takes, task.steps[-1].operation.gives
            yield Problem(
                id=f"{task.id}.{language}",
                task=task.id,
                language=language,
                prompt=render_prompt(language, task.text, takes, gives),
                tests=render_tests(language, cases),
                split=task.split,
                source="bank",
                stop_tokens=LANGUAGES[language].stop_tokens,
                response=render_solution(language, task.corpus[language]) if task.corpus else None,
            )


def draw_tasks(config: BankConfig) -> Iterator[Task]:
    """The tasks of `generate`, split by split. Raises `UsageError` as `generate` does."""
    rates = bug_rates(config)
    by_split: dict[str, list[Chain]] = {split: [] for split in SPLITS}
    for family in config.families:
        for chain in compositions(FAMILIES[family], config.lengths):
            by_split[split_of(chain, config)].append(chain)
    for split in SPLITS:
        if split in config.sizes:
            yield from _tasks_of(split, by_split[split], rates, config)


def _tasks_of(split: str, chains: list[Chain], rates: dict[str, float], config: BankConfig) -> Iterator[Task]:
    rng = random.Random(f"{config.seed}/{split}")
    size = config.sizes[split]
    seen: set[str] = set()
    misses = 0  # failed draws in a row: no inputs that show the mistakes, or a repeated text
    patience = 200 + 10 * len(chains)
    for chain in _endlessly(chains, rng):
        steps = tuple(Step(operation, rng.choice(operation.numbers or (0,))) for operation in chain)
        inputs = draw_inputs(steps, rng, config.tests)
        text = sentence(steps, rng)
        if inputs is None or text in seen:
            misses += 1
            if misses > patience:
                break
            continue
        misses = 0
        seen.add(text)
        name = "_".join(f"{step.operation.name}{step.number or ''}" for step in steps)
        written_in = config.languages if split == "sft" else ()
        corpus = {language: corrupt(steps, rates, rng) for language in written_in}
        yield Task(f"bank_{name}_{len(seen)}", split, steps, text, inputs, corpus)
        if len(seen) == size:
            return
    raise UsageError(
        f"bank: split {split!r} is to have {size} tasks, but its {len(chains)} chains of operations gave "
        f"{len(seen)} different ones and then hardly any; lower sizes.{split}, raise shares.{split}, "
        "or add to lengths or families"
    )


def _endlessly(chains: Sequence[Chain], rng: random.Random) -> Iterator[Chain]:
    """All chains in random order, repeated without end in new orders; empty where `chains` is."""
    while chains:
        yield from reversed(rng.sample(chains, len(chains)))


def compositions(family: Family, lengths: Sequence[int]) -> Iterator[Chain]:
    """All chains of a family with as many steps as one of `lengths`, and an ending, in a deterministic order."""
    for length in lengths:
        for steps in itertools.permutations(family.steps, length):
            for ending in family.endings:
                yield (*steps, ending)


def split_of(chain: Chain, config: BankConfig) -> str:
    """The split of the chain's composition, drawn with a seed made of the config's seed and the composition."""
    name = "+".join(sorted(operation.name for operation in chain))
    return split_at(random.Random(f"{config.seed}/split/{name}").random(), config.shares)


def bug_rates(config: BankConfig) -> dict[str, float]:
    """Name of each operation that has a mistake -> rate of the mistake in answers."""
    rates: dict[str, float] = {}
    # A draw for each family, so that adding a family does not change the rates of others.
    for family in config.families:
        operations = (*FAMILIES[family].steps, *FAMILIES[family].endings)
        names = sorted(operation.name for operation in operations if operation.mistake is not None)
        count = round(config.systematic_share * len(names))
        systematic = random.Random(f"{config.seed}/systematic").sample(names, count)
        rates |= {name: config.systematic_rate if name in systematic else config.stray_rate for name in names}
    return rates


def corrupt(steps: Sequence[Step], rates: dict[str, float], rng: random.Random) -> tuple[Step, ...]:
    """The steps of an answer: each step is replaced by its mistake with the probability `rates[name]`."""
    return tuple(
        step.mistaken() if rng.random() < rates.get(step.operation.name, 0.0) else step for step in steps
    )


def draw_inputs(steps: Sequence[Step], rng: random.Random, count: int) -> tuple[Value, ...] | None:
    """`count` inputs, among which each step's mistake changes some result; None where four draws find no such inputs."""
    family = FAMILIES[steps[0].operation.takes]
    wrong = [
        (*steps[:at], step.mistaken(), *steps[at + 1 :])
        for at, step in enumerate(steps)
        if step.operation.mistake is not None
    ]
    for _ in range(4):
        inputs = (family.empty, *(family.draw(rng) for _ in range(count - 1)))
        if all(any(run_chain(steps, x) != run_chain(other, x) for x in inputs) for other in wrong):
            return inputs
    return None


def run_chain(steps: Sequence[Step], value: Value) -> Value:
    """The result of the chain for the argument `value`."""
    for step in steps:
        value = step.operation.compute(value, step.number)
    return value


def sentence(steps: Sequence[Step], rng: random.Random) -> str:
    """The problem in words; `rng` chooses the phrases."""
    said = [rng.choice(step.operation.phrases).format(k=step.number) for step in steps]
    openings = FAMILIES[steps[0].operation.takes].openings
    return rng.choice(openings) + ", ".join(said[:-1]) + " and " + said[-1] + "."
