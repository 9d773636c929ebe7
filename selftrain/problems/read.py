"""The one way in: from a config to checked problems, and to what stands for their content in a stage's key."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from selftrain.bank.generate import generate
from selftrain.config import BankConfig, ContestsConfig, JsonlConfig, MixedConfig, MultiPLEConfig
from selftrain.errors import DataError
from selftrain.problems.contests import contest_problems
from selftrain.problems.hub import read_hub, resolve_commit
from selftrain.problems.jsonl import jsonl_problem
from selftrain.problems.leaks import check_leaks
from selftrain.problems.multipl_e import multipl_e_problem
from selftrain.problems.rows import Row, digest_files, find_files, read_rows
from selftrain.problems.splits import assign_splits
from selftrain.records import Problem

log = logging.getLogger(__name__)

OutsideProblems = MultiPLEConfig | ContestsConfig | JsonlConfig
AnyProblems = BankConfig | OutsideProblems | MixedConfig


def read_problems(config: AnyProblems, content: Mapping[str, Any] | None = None) -> list[Problem]:
    """The problems that `config` asks for, each in its split; those of sft and validation carry the answers.

    `content`: what `content_digest` said, where that is known: the commits of data sets; else the hub is asked.
    Problems from outside come in the order of task and language, whatever files they are in; those of a mix part by part.
    Raises `DataError` for problems that cannot be used, and where one to evaluate on is one to train on (`check_leaks`);
    `RunError` where the hub cannot be reached.
    """
    problems = _unchecked(config, content or {})
    check_leaks(problems)
    return problems


def _unchecked(config: AnyProblems, content: Mapping[str, Any]) -> list[Problem]:
    if isinstance(config, BankConfig):
        return list(generate(config))
    if isinstance(config, MixedConfig):
        contents = content.get("parts", [{}] * len(config.parts))
        return _joined(
            [_unchecked(part, known) for part, known in zip(_parts(config), contents, strict=True)]
        )
    problems = _arranged(_read(config, content.get("commit")), config)
    _check(problems, config)
    return problems


def _parts(config: MixedConfig) -> list[OutsideProblems]:
    return [part.model_copy(update={"seed": part.seed + config.seed}) for part in config.parts]


def _joined(parts: list[list[Problem]]) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for problem in (problem for part in parts for problem in part):
        if problem.id in problems:
            raise DataError(
                f"problem {problem.id!r} is in two parts, from {problems[problem.id].source} and from {problem.source}; "
                "leave it out of one with `exclude`"
            )
        problems[problem.id] = problem
    return list(problems.values())


def content_digest(config: AnyProblems) -> dict[str, Any]:
    """What stands for the content that `config` names: sha256 of what files hold, the commit of a data set on the hub.

    One changed byte changes it; names, folders and times of files do not. Empty for the bank, which takes nothing from
    outside. Raises `DataError` where there is nothing, `RunError` where the hub cannot be asked.
    """
    if isinstance(config, BankConfig):
        return {}
    if isinstance(config, MixedConfig):
        return {"parts": [content_digest(part) for part in config.parts]}
    if isinstance(config, JsonlConfig):
        return {"files": digest_files(find_files(config.files))}
    if config.hub is not None:
        commit = resolve_commit(config.hub, config.revision)
        return {"commit": commit, "train": list(config.train), "evaluation": list(config.evaluation)}
    return {role: digest_files(find_files(entries)) for role, entries in _entries(config).items()}


def _entries(config: OutsideProblems) -> dict[str, tuple[str, ...]]:
    """What to read, by what it is for."""
    if isinstance(config, JsonlConfig):
        return {"files": config.files}
    return {"train": config.train, "evaluation": config.evaluation}


def _read(config: OutsideProblems, commit: str | None) -> list[Problem]:
    """The problems in the languages asked for; those that are not shared out over the splits have theirs already."""
    if commit is None and not isinstance(config, JsonlConfig) and config.hub is not None:
        commit = resolve_commit(config.hub, config.revision)
    problems: dict[str, Problem] = {}
    where: dict[str, str] = {}
    for role, entries in _entries(config).items():
        for row in _rows(config, entries, commit):
            for problem in _problems(config, row):
                if problem.language not in config.languages:
                    continue
                if problem.id in problems:
                    raise DataError(
                        f"{row.where}: problem {problem.id!r} is there twice; first at {where[problem.id]}"
                    )
                where[problem.id] = row.where
                problems[problem.id] = replace(problem, split="test") if role == "evaluation" else problem
    return list(problems.values())


def _rows(config: OutsideProblems, entries: tuple[str, ...], commit: str | None) -> Iterator[Row]:
    if isinstance(config, JsonlConfig) or config.hub is None or commit is None:
        for path in find_files(entries):
            yield from read_rows(path)
        return
    for entry in entries:
        if isinstance(config, ContestsConfig):
            yield from read_hub(config.hub, commit, None, split=entry)
            continue
        for language in config.languages if "*" in entry else ("",):
            yield from read_hub(config.hub, commit, entry.replace("*", language), split="test")


def _problems(config: OutsideProblems, row: Row) -> Iterable[Problem]:
    match config:
        case MultiPLEConfig():
            return (multipl_e_problem(row),)
        case ContestsConfig():
            return contest_problems(row, config.languages, config.max_cases)
        case JsonlConfig():
            return (jsonl_problem(row),)


def _arranged(problems: list[Problem], config: OutsideProblems) -> list[Problem]:
    """`problems` in their splits and in order, without the excluded ones, and with answers where they are used: sft learns from
    them, validation is measured on them."""
    if unknown := set(config.exclude) - {problem.task for problem in problems}:
        raise DataError(f"exclude: no task is named {', '.join(sorted(unknown))}; take the name out")
    kept = [problem for problem in problems if problem.task not in config.exclude]
    shared_out = assign_splits([problem for problem in kept if not problem.split], config.shares, config.seed)
    placed = [problem for problem in kept if problem.split] + shared_out
    order = {language: at for at, language in enumerate(config.languages)}
    placed.sort(key=lambda problem: (problem.task, order[problem.language]))
    used = ("sft", "validation")
    return [problem if problem.split in used else replace(problem, response=None) for problem in placed]


def _check(problems: list[Problem], config: OutsideProblems) -> None:
    """Raise `DataError` where a language or a split has no problems, or sft no answers."""
    languages = Counter(problem.language for problem in problems)
    if missing := [language for language in config.languages if not languages[language]]:
        found = ", ".join(f"{language} ({count})" for language, count in languages.items()) or "none"
        raise DataError(
            f"no problems in {', '.join(missing)}; found: {found}; add them, or take it out of `languages`"
        )
    tasks = {
        split: {problem.task for problem in problems if problem.split == split} for split in config.splits
    }
    if empty := [split for split, names in tasks.items() if not names]:
        counts = ", ".join(f"{split} {len(names)}" for split, names in tasks.items())
        raise DataError(
            f"no tasks in split {', '.join(empty)} (tasks: {counts}); give more, other `shares`, or another `seed`"
        )
    learnt = [problem for problem in problems if problem.split == "sft"]
    answered = [problem for problem in learnt if problem.response]
    if learnt and not answered:
        raise DataError(
            f"none of the {len(learnt)} problems of split sft has an answer to learn from; give `response` in its rows "
            "(`solutions` in contest problems), or give sft no share in `shares`"
        )
    log.info("%d problems, %d of %d in sft with an answer", len(problems), len(answered), len(learnt))
