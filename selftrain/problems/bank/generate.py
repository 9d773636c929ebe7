"""Draws the bank's problems: chains of operations, their prompts and tests, and answers to learn from.

A *composition* is the set of operations of a chain, its ending included. Each composition belongs to one
split, so the problems for evaluation ask for combinations that no training problem asked for.

The answers are what scraped code is: untested. At a seeded rate an operation carries its classic mistake. For
a share of the operations (`systematic_share`) most of this corpus has it wrong, so that a model of the corpus
is confidently wrong there; only execution tells.
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
from selftrain.records import Problem

Chain = tuple[Operation, ...]


@dataclass(frozen=True)
class Task:
    """A problem before it is written in a language.

    steps     what is asked for, the ending last
    text      one wording of it
    inputs    arguments that tell each step from its mistake
    corpus    by language: the steps as the corpus has them, mistakes included; empty but in the sft split
    """

    id: str
    split: str
    steps: tuple[Step, ...]
    text: str
    inputs: tuple[Value, ...]
    corpus: dict[str, tuple[Step, ...]] = field(default_factory=dict)


def generate(config: BankConfig) -> Iterator[Problem]:
    """The bank's problems: `config.sizes[split]` tasks of each split, each in every language.

    Those of the sft split carry an answer. Raises `UsageError` where a split's compositions give fewer tasks.
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
    """The tasks of `generate`, split by split. Raises `UsageError` as it does."""
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
    misses = 0  # in a row: chains whose mistakes no inputs show, and wordings that were there before
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
    """All chains in random order, over and over."""
    while chains:
        yield from reversed(rng.sample(chains, len(chains)))


def compositions(family: Family, lengths: Sequence[int]) -> Iterator[Chain]:
    """All chains of `lengths` steps and an ending, in a fixed order."""
    for length in lengths:
        for steps in itertools.permutations(family.steps, length):
            for ending in family.endings:
                yield (*steps, ending)


def split_of(chain: Chain, config: BankConfig) -> str:
    """The split that the chain's composition belongs to, by a hash that depends on the seed only."""
    name = "+".join(sorted(operation.name for operation in chain))
    at = random.Random(f"{config.seed}/split/{name}").random()
    splits = [split for split in SPLITS if config.shares.get(split, 0) > 0]
    for split in splits:
        at -= config.shares[split]
        if at < 0:
            return split
    return splits[-1]  # the shares sum to 1 but for rounding


def bug_rates(config: BankConfig) -> dict[str, float]:
    """The share of the corpus that has an operation wrong, for each that has a mistake, by name."""
    rates: dict[str, float] = {}
    for family in config.families:  # one by one: adding a family leaves the others' mistakes as they are
        operations = (*FAMILIES[family].steps, *FAMILIES[family].endings)
        names = sorted(operation.name for operation in operations if operation.mistake is not None)
        count = round(config.systematic_share * len(names))
        systematic = random.Random(f"{config.seed}/systematic").sample(names, count)
        rates |= {name: config.systematic_rate if name in systematic else config.stray_rate for name in names}
    return rates


def corrupt(steps: Sequence[Step], rates: dict[str, float], rng: random.Random) -> tuple[Step, ...]:
    """The steps as the corpus has them: each with its mistake at its rate."""
    written = []
    for step in steps:
        rate = rates.get(step.operation.name, 0.0)
        written.append(step.mistaken() if rng.random() < rate else step)
    return tuple(written)


def draw_inputs(steps: Sequence[Step], rng: random.Random, count: int) -> tuple[Value, ...] | None:
    """`count` inputs that tell each step from its mistake, or None where none are found in a few tries."""
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
    """What the chain computes."""
    for step in steps:
        value = step.operation.compute(value, step.number)
    return value


def sentence(steps: Sequence[Step], rng: random.Random) -> str:
    """One wording of the problem."""
    said = [rng.choice(step.operation.phrases).format(k=step.number) for step in steps]
    openings = FAMILIES[steps[0].operation.takes].openings
    return rng.choice(openings) + ", ".join(said[:-1]) + " and " + said[-1] + "."
