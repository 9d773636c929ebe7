"""Tests of what the bank generates: splits, seeds, rates of mistakes, and errors for impossible settings."""

import hashlib
import json
import math
from collections import Counter, defaultdict
from typing import Literal

import pytest
from pydantic import ValidationError

from selftrain.config import BankConfig
from selftrain.errors import UsageError
from selftrain.problems.bank.generate import (
    bug_rates,
    compositions,
    draw_tasks,
    generate,
    run_chain,
    split_of,
)
from selftrain.problems.bank.operations import BY_NAME, FAMILIES, Step
from selftrain.records import digest

SIZES = {"sft": 120, "rl": 40, "validation": 10, "test": 30}
Family = Literal["list", "string", "number"]
ALL: tuple[Family, ...] = ("list", "string", "number")


def test_every_split_has_its_tasks_in_every_language() -> None:
    problems = list(generate(BankConfig(languages=("py", "cs"), families=ALL, sizes=SIZES)))
    assert Counter((p.split, p.language) for p in problems) == {
        (split, language): size for split, size in SIZES.items() for language in ("py", "cs")
    }
    assert len({p.id for p in problems}) == len(problems)
    assert len({p.task for p in problems}) == sum(SIZES.values())
    assert {p.id for p in problems} == {f"{p.task}.{p.language}" for p in problems}
    assert {p.split for p in problems if p.response is not None} == {"sft"}
    assert all(p.response for p in problems if p.split == "sft")
    assert {p.stop_tokens for p in problems if p.language == "cs"} == {("\n    }\n",)}


def test_splits_share_neither_composition_nor_text() -> None:
    compositions_of = defaultdict(set)
    texts_of = defaultdict(set)
    for task in draw_tasks(BankConfig(families=ALL, sizes=SIZES)):
        compositions_of[task.split].add(frozenset(step.operation.name for step in task.steps))
        texts_of[task.split].add(task.text)
    for split in SIZES:
        assert len(texts_of[split]) == SIZES[split]
        for other in set(SIZES) - {split}:
            assert not compositions_of[split] & compositions_of[other]
            assert not texts_of[split] & texts_of[other]


def test_the_order_of_steps_does_not_change_the_split() -> None:
    config = BankConfig()
    chain = tuple(BY_NAME[name] for name in ("gt", "square", "sum"))
    assert split_of(chain, config) == split_of(tuple(reversed(chain)), config)


def test_shares_are_the_share_of_compositions() -> None:
    chains = list(compositions(FAMILIES["list"], (2,)))
    assert len(chains) == 14 * 13 * 6
    config = BankConfig(seed=3)
    found = Counter(split_of(chain, config) for chain in chains)
    for split, share in config.shares.items():
        deviation = (
            math.sqrt(len(chains) / 2 * share * (1 - share)) * 2
        )  # two orders of each composition go together
        assert abs(found[split] - len(chains) * share) < 4 * deviation, split


def test_the_order_of_sizes_and_shares_changes_nothing() -> None:
    one = BankConfig(sizes=SIZES)
    other = BankConfig(sizes=dict(reversed(SIZES.items())), shares=dict(reversed(one.shares.items())))
    assert digest(list(generate(one))) == digest(list(generate(other)))


def test_a_seed_gives_the_same_problems_for_ever() -> None:
    """Where this changes on purpose, stored problems are stale: raise the version of stage `prepare`."""
    digests = {}
    for family in ALL:
        problems = generate(BankConfig(seed=1, families=(family,), sizes=SIZES))
        rows = [(p.id, p.split, p.prompt, p.tests, p.response) for p in problems]
        digests[family] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    assert digests == {
        "list": "4de0f344a76fd412",
        "string": "d833612d96410ccb",
        "number": "74544112be09675c",
    }


def test_another_seed_gives_other_problems() -> None:
    one, other = (list(draw_tasks(BankConfig(seed=seed, sizes=SIZES))) for seed in (1, 2))
    shared = {task.text for task in one} & {task.text for task in other}
    assert len(shared) < len(one) / 10


def test_inputs_tell_every_step_from_its_mistake() -> None:
    for task in draw_tasks(BankConfig(families=ALL, sizes={"test": 60})):
        assert len(task.inputs) == 8
        assert task.inputs[0] == FAMILIES[task.steps[0].operation.takes].empty
        for at, step in enumerate(task.steps):
            if step.operation.mistake:
                wrong = (*task.steps[:at], step.mistaken(), *task.steps[at + 1 :])
                assert any(run_chain(wrong, x) != run_chain(task.steps, x) for x in task.inputs)


@pytest.mark.parametrize("family", ALL)
def test_mistakes_come_at_the_stated_rates(family: Family) -> None:
    config = BankConfig(families=(family,), languages=("py",), sizes={"sft": 1000}, shares={"sft": 1})
    rates = bug_rates(config)
    asked: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for task in draw_tasks(config):
        for step, written in zip(task.steps, task.corpus["py"], strict=True):
            asked[step.operation.name] += 1
            if written != step:
                assert written == step.mistaken()
                wrong[step.operation.name] += 1
    assert set(rates) == {name for name in asked if BY_NAME[name].mistake}
    assert set(wrong) <= set(rates)
    for name, rate in rates.items():
        deviation = math.sqrt(asked[name] * rate * (1 - rate))
        assert abs(wrong[name] - asked[name] * rate) < 4.5 * deviation + 1, name
    systematic = [name for name, rate in rates.items() if rate == config.systematic_rate]
    assert len(systematic) == round(config.systematic_share * len(rates))
    expected = sum(asked[name] * rate for name, rate in rates.items())
    deviation = math.sqrt(sum(asked[name] * rate * (1 - rate) for name, rate in rates.items()))
    assert abs(sum(wrong.values()) - expected) < 4 * deviation


def test_one_more_family_leaves_the_mistakes_of_the_others() -> None:
    assert bug_rates(BankConfig(families=("list",))).items() <= bug_rates(BankConfig(families=ALL)).items()


def test_without_bugs_the_corpus_is_right() -> None:
    config = BankConfig(families=ALL, sizes={"sft": 50}, systematic_share=0, stray_rate=0)
    assert all(set(task.corpus.values()) == {task.steps} for task in draw_tasks(config))


def test_run_chain() -> None:
    steps = [Step(BY_NAME["gt"], 2), Step(BY_NAME["double"], 0), Step(BY_NAME["sum"], 0)]
    assert run_chain(steps, [1, 2, 3, 4]) == 14


def test_more_tasks_than_there_are_is_an_error() -> None:
    config = BankConfig(lengths=(1,), sizes={"validation": 5000}, shares={"sft": 0.97, "validation": 0.03})
    with pytest.raises(
        UsageError, match=r"'validation' is to have 5000 tasks, but its \d+ chains .* gave \d+ .*sizes"
    ):
        list(generate(config))


def test_a_split_without_compositions_is_an_error() -> None:
    config = BankConfig(lengths=(1,), sizes={"test": 1}, shares={"sft": 0.99999, "test": 0.00001})
    with pytest.raises(UsageError, match="its 0 chains"):
        list(generate(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ("py", "cobol")}, "languages: unknown language 'cobol'; known: py, cpp"),
        ({"languages": ()}, "languages: expected at least one"),
        ({"languages": ("py", "py")}, "none twice"),
        ({"families": ("lists",)}, "Input should be 'list', 'string' or 'number'"),
        ({"families": ()}, "families: expected at least one"),
        ({"lengths": ()}, "lengths: expected at least one"),
        ({"lengths": (5,)}, "less than or equal to 4"),
        ({"sizes": {}}, "sizes: expected at least one"),
        ({"sizes": {"dev": 3}}, "sizes: unknown dev; known: sft, rl"),
        ({"shares": {"sft": 0.5, "test": 0.4}}, "shares: expected a sum of 1, got 0.9"),
        (
            {"shares": {"sft": 1.0}},
            "sizes asks for tasks of rl, validation, test, which shares gives nothing",
        ),
    ],
)
def test_config_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BankConfig.model_validate(change)
