"""Reads a config's problems from any source, checks them, and identifies their content for cache keys."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.languages import LANGUAGES, short_name
from selftrain.config import SPLITS, BankConfig, ContestsConfig, JsonlConfig, MixedConfig, MultiPLEConfig
from selftrain.errors import DataError, RunError
from selftrain.problems.answers import Cleaned
from selftrain.problems.bank.generate import generate
from selftrain.problems.contests import contest
from selftrain.problems.hub import check_splits, read_hub, resolve_commit, subsets
from selftrain.problems.jsonl import jsonl_problem
from selftrain.problems.leaks import check_leaks
from selftrain.problems.multipl_e import multipl_e_problem
from selftrain.problems.python_sets import PYTHON_SETS, python_rows
from selftrain.problems.rows import Entry, Row, digest_files, find_files, read_rows
from selftrain.problems.splits import assign_splits
from selftrain.records import Problem
from selftrain.units import listed, none_of

log = logging.getLogger(__name__)

# Reasons for leaving a task out, in addition to those of `contests`.
EXCLUDED = "excluded"
TWICE = "is there twice"

USED = ("sft", "validation")
"""Splits whose answers are used: SFT trains on those of `sft` and is validated on those of `validation`."""

OutsideProblems = MultiPLEConfig | ContestsConfig | JsonlConfig
AnyProblems = BankConfig | OutsideProblems | MixedConfig


@dataclass(frozen=True)
class Found:
    """The problems of a source.

    problems    each with its split; only problems of the splits `USED` have an answer (`response`)
    references  problem id -> completions that are right, according to the source; for problems of every split
    left_out    reason -> number of tasks that are left out
    untried     ids of problems whose answers were never run on their tests: those of MultiPL-E and of a user's own files
                (CodeContests' solutions were judged by the contest sites)
    checks      kind of finding -> number, from `selftrain.problems.checks`
    answers     problem id -> cleaned answer, for problems of the splits `USED`
    others      language that the config does not name -> number of its problems
    """

    problems: list[Problem]
    references: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    untried: frozenset[str] = frozenset()
    checks: Mapping[str, int] = field(default_factory=dict)
    answers: dict[str, Cleaned] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def told(self) -> str:
        """Text with the number of tasks left out for each reason; empty where no task is."""
        return ", ".join(f"{count} ({reason})" for reason, count in sorted(self.left_out.items()))


def read_problems(config: AnyProblems, content: Mapping[str, Any] | None = None) -> list[Problem]:
    """The problems that `find_problems` finds."""
    return find_problems(config, content).problems


def find_problems(config: AnyProblems, content: Mapping[str, Any] | None = None) -> Found:
    """The problems that `config` asks for, and the tasks that it leaves out.

    `content`: the result of `content_digest`; computed if None. Except for the bank, problems are sorted by task and language,
    in a mixed source within each part. Raises `DataError` for unusable problems and for leaks (`check_leaks`), `RunError`
    where the hub cannot be reached.
    """
    content = content or content_digest(config)
    check_names(config, content)
    found = _unchecked(config, content)
    check_leaks(found.problems)
    return found


def _unchecked(config: AnyProblems, content: Mapping[str, Any]) -> Found:
    if isinstance(config, BankConfig):
        return Found(_in_split_languages(generate(config), config))
    if isinstance(config, MixedConfig):
        contents = content.get("parts", [{}] * len(config.parts))
        parts = [part.model_copy(update={"seed": part.seed + config.seed}) for part in config.parts]
        return _joined([_unchecked(part, known) for part, known in zip(parts, contents, strict=True)])
    found = _read(config, content)
    problems = _in_split_languages(_arranged(found.problems, config), config)
    _check(problems, config, found)
    if found.told:
        log.info("tasks left out: %s", found.told)
    used = {problem.id for problem in problems if problem.split in USED}
    answers = {id: cleaned for id, cleaned in found.answers.items() if id in used}
    if left := [f"{id} ({cleaned.why})" for id, cleaned in answers.items() if cleaned.how == "left out"]:
        log.warning(
            "%d of %d answers cannot be learnt from, because what follows the prompt cannot hold them: %s",
            len(left),
            len(answers),
            listed(left),
        )
    return replace(found, problems=problems, answers=answers)


def check_filled(found: Found, config: AnyProblems) -> None:
    """Raise `DataError` where a split that a run needs has no problem."""
    # A run without SFT gives split sft no problems; SFT itself refuses to learn from none.
    unused = {"sft"} - set(config.splits)
    there = {problem.split for problem in found.problems}
    if missing := [split for split in SPLITS if split not in there | unused]:
        raise DataError(
            f"no problem in splits {', '.join(missing)}; they need some: check problems.* in the config"
            + (f"; left out: {found.told}" if found.told else "")
        )


def _in_split_languages(problems: Iterable[Problem], config: BankConfig | OutsideProblems) -> list[Problem]:
    """The problems in the languages of their splits (`split_languages`)."""
    chosen = config.split_languages
    return [
        problem for problem in problems if problem.language in chosen.get(problem.split, config.languages)
    ]


def _joined(parts: list[Found]) -> Found:
    problems: dict[str, Problem] = {}
    for problem in (problem for part in parts for problem in part.problems):
        if problem.id in problems:
            raise DataError(
                f"problem {problem.id!r} is in two parts, from {problems[problem.id].source} and from {problem.source}; "
                "leave it out of one with `exclude`"
            )
        problems[problem.id] = problem
    references = {id: texts for part in parts for id, texts in part.references.items()}
    left_out = sum((part.left_out for part in parts), Counter[str]())
    untried = frozenset().union(*(part.untried for part in parts))
    answers = {id: cleaned for part in parts for id, cleaned in part.answers.items()}
    return Found(list(problems.values()), references, left_out, untried, answers=answers)


def content_digest(config: AnyProblems) -> dict[str, Any]:
    """Identifies the problems' content, for cache keys: the sha256 of files, or the commit of a data set on the hub.

    It depends on every byte of the files, but not on their names, folders and times. Empty for the bank, whose problems
    depend on the config alone. Raises `DataError` where files are missing, `RunError` where the hub cannot be reached.
    """
    if isinstance(config, BankConfig):
        return {}
    if isinstance(config, MixedConfig):
        return {"parts": [content_digest(part) for part in config.parts]}
    if isinstance(config, JsonlConfig):
        return {"files": digest_files(find_files(config.files))}
    if config.hub is not None:
        commit = resolve_commit(config.hub, config.revision)
        found: dict[str, Any] = {
            "commit": commit,
            "train": list(config.train),
            "evaluation": list(config.evaluation),
        }
        if isinstance(config, MultiPLEConfig) and (missing := _missing_python(config, commit)):
            found["python"] = {subset: _python_commit(config, subset) for subset in missing}
        return found
    return {role: digest_files(find_files(entries)) for role, entries in _entries(config).items()}


def check_names(config: AnyProblems, content: Mapping[str, Any]) -> None:
    """Raise `DataError` where a data set on the hub lacks a subset or split that `config` names, before its rows are read.

    `content`: the result of `content_digest`.
    """
    if isinstance(config, MixedConfig):
        for part, known in zip(config.parts, content["parts"], strict=True):
            check_names(part, known)
    elif isinstance(config, ContestsConfig) and config.hub is not None:
        check_splits(config.hub, content["commit"], (*config.train, *config.evaluation))
    elif isinstance(config, MultiPLEConfig) and config.hub is not None:
        there = subsets(config.hub, content["commit"])
        if missing := sorted(_named(config) - {*there, *content.get("python", {})}):
            raise DataError(f"{config.hub}: no subset {', '.join(missing)}; it has {', '.join(there)}")


def _subsets(config: MultiPLEConfig, entries: tuple[str, ...]) -> list[str]:
    """The names of subsets in `entries`, with each `*` replaced by each language of `config`."""
    return [
        entry.replace("*", LANGUAGES[name].multipl_e or name)
        for entry in entries
        for name in (config.languages if "*" in entry else config.languages[:1])
    ]


def _named(config: MultiPLEConfig) -> set[str]:
    return {subset for entries in _entries(config).values() for subset in _subsets(config, entries)}


def _missing_python(config: MultiPLEConfig, commit: str) -> list[str]:
    """The Python subsets that `config` names and that its data set lacks."""
    python = _named(config) & PYTHON_SETS.keys()
    return sorted(python - set(subsets(str(config.hub), commit))) if python else []


def _python_commit(config: MultiPLEConfig, subset: str) -> str:
    try:
        return resolve_commit(*_python_set(config, subset))
    except RunError as error:
        raise RunError(
            f"{config.hub} has no subset {subset}; its problems are in what `{subset.replace('-', '_')}`, a folder or a data set "
            f"on the hub, names: {error}"
        ) from error


def _python_set(config: MultiPLEConfig, subset: str) -> tuple[str, str]:
    """Name and revision of the data set from which a Python subset is read, from the config's `NAME@REVISION`."""
    hub, _, revision = str(getattr(config, subset.replace("-", "_"))).partition("@")
    return hub, revision or "main"


def checker_languages(config: AnyProblems) -> set[str]:
    """The languages of the checkers in `config`'s files, whose tools also affect verdicts. Raises `DataError`."""
    if isinstance(config, MixedConfig):
        return set().union(*map(checker_languages, config.parts))
    if not isinstance(config, JsonlConfig):
        return set()
    checkers = (
        row.fields.get("checker")
        for path in find_files(config.files)
        for row in read_rows(path)
        if isinstance(row.fields, dict)
    )
    named = (checker.get("language") for checker in checkers if isinstance(checker, dict))
    return {short_name(name) for name in named if isinstance(name, str)}


def _entries(config: OutsideProblems) -> dict[str, tuple[str, ...]]:
    """Role (`train` and `evaluation`; only `files` for a user's own files) -> the config's list of what to read."""
    if isinstance(config, JsonlConfig):
        return {"files": config.files}
    return {"train": config.train, "evaluation": config.evaluation}


def _read(config: OutsideProblems, content: Mapping[str, Any]) -> Found:
    """The problems in the languages of `config`. Those with the role `evaluation` are in split test; others may lack a split."""
    left_out: Counter[str] = Counter()
    others: Counter[str] = Counter()
    entries: list[Entry] = []
    named: set[str] = set()
    excluded: set[str] = set()
    for role, given in _entries(config).items():
        for row in _rows(config, given, content):
            named.add(name := _name(config, row))
            # Not even checked: a user cannot repair a row of a data set on the hub.
            if name in config.exclude:
                excluded.add(name)
                continue
            entry = _entry(config, row)
            if entry.left_out:
                left_out[entry.left_out] += 1
                continue
            problems = [problem for problem in entry.problems if problem.language in config.languages]
            others.update(sorted({problem.language for problem in entry.problems} - set(config.languages)))
            if role == "evaluation":
                problems = [replace(problem, split="test") for problem in problems]
            entries.append(replace(entry, problems=tuple(problems)))
    if isinstance(config, ContestsConfig):
        entries = _unique(entries, left_out)
        named |= {entry.task for entry in entries}
        excluded |= {entry.task for entry in entries if entry.task in config.exclude}
    if unknown := set(config.exclude) - named:
        raise DataError(f"exclude: no task is named {', '.join(sorted(unknown))}; take the name out")
    if excluded:
        left_out[EXCLUDED] = len(excluded)
    found = Found([], left_out=left_out, others=others)
    where: dict[str, str] = {}
    for entry in entries:
        for problem in entry.problems if entry.task not in excluded else ():
            if problem.id in where:
                raise DataError(
                    f"{entry.where}: problem {problem.id!r} is there twice; first at {where[problem.id]}"
                )
            where[problem.id] = entry.where
            found.problems.append(problem)
            if texts := entry.references.get(problem.language):
                found.references[problem.id] = texts
            if cleaned := entry.answers.get(problem.language):
                found.answers[problem.id] = cleaned
    if isinstance(config, ContestsConfig):
        return found
    return replace(found, untried=frozenset(where))


def _name(config: OutsideProblems, row: Row) -> str:
    """The task's name in an unchecked row; empty where the row has none."""
    fields = row.fields if isinstance(row.fields, dict) else {}
    name = fields.get("task" if isinstance(config, JsonlConfig) else "name")
    return name if isinstance(name, str) else ""


def _unique(entries: list[Entry], left_out: Counter[str]) -> list[Entry]:
    """`entries` without repeated texts, and with unique task names: in CodeContests, different tasks share a name.

    A shared name gets a suffix from the digest of the task's text, so that it does not depend on the order of rows.
    """
    by_name: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        by_name[entry.task][entry.digest].append(entry)
    found: list[Entry] = []
    for name, by_text in by_name.items():
        for digest, same in by_text.items():
            once: dict[str, Entry] = {}  # split -> the first entry
            for entry in same:
                once.setdefault(entry.problems[0].split, entry)
            if len(once) < len(same):
                left_out[TWICE] += len(same) - len(once)
            unique = name if len(by_text) == 1 else f"{name}#{digest}"
            found += [_renamed(entry, unique) for entry in once.values()]
    shared = [entry for entry in found if len(by_name[entry.task.rpartition("#")[0]]) > 1]
    if shared:
        names = [f"{entry.task!r} ({entry.where})" for entry in shared]
        log.warning("tasks with the same name are renamed to %s", listed(names))
    return found


def _renamed(entry: Entry, task: str) -> Entry:
    problems = [replace(problem, task=task, id=f"{task}.{problem.language}") for problem in entry.problems]
    return replace(entry, task=task, problems=tuple(problems))


def _rows(config: OutsideProblems, entries: tuple[str, ...], content: Mapping[str, Any]) -> Iterator[Row]:
    if isinstance(config, JsonlConfig) or config.hub is None:
        for path in find_files(entries):
            yield from read_rows(path)
    elif isinstance(config, ContestsConfig):
        for entry in entries:
            yield from read_hub(config.hub, content["commit"], None, split=entry)
    else:
        python = content.get("python", {})
        for subset in _subsets(config, entries):
            if subset in python:
                yield from python_rows(subset, _python_set(config, subset)[0], python[subset])
            else:
                yield from read_hub(config.hub, content["commit"], subset, split="test")


def _entry(config: OutsideProblems, row: Row) -> Entry:
    """The content of a row. If it holds a single problem, the problem's answer is also its reference."""
    if isinstance(config, ContestsConfig):
        return contest(row, config.languages, config.max_cases, config.pictures, config.references)
    problem, cleaned = (jsonl_problem if isinstance(config, JsonlConfig) else multipl_e_problem)(row)
    references = {problem.language: (problem.response,)} if problem.response else {}
    answers = {problem.language: cleaned} if cleaned.how else {}
    return Entry(problem.task, (problem,), references, answers, row.where)


def _arranged(problems: list[Problem], config: OutsideProblems) -> list[Problem]:
    """`problems` with splits, sorted by task and language, and with answers only in the splits `USED`."""
    shared_out = assign_splits(
        [problem for problem in problems if not problem.split], config.shares, config.seed
    )
    placed = [problem for problem in problems if problem.split] + shared_out
    order = {language: at for at, language in enumerate(config.languages)}
    placed.sort(key=lambda problem: (problem.task, order[problem.language]))
    return [problem if problem.split in USED else replace(problem, response=None) for problem in placed]


def _check(problems: list[Problem], config: OutsideProblems, found: Found) -> None:
    """Raise `DataError` where a language or a split has no problems, or split sft has no answers."""
    languages = Counter(problem.language for problem in problems)
    if missing := [language for language in config.languages if not languages[language]]:
        there = ", ".join(f"{name} ({count})" for name, count in (languages | found.others).items()) or "none"
        named = list(languages) or [name for name in found.others if name in LANGUAGES]
        advice = (
            f", or name only those that are there: problems.languages: [{', '.join(named)}]" if named else ""
        )
        left_out = f"; tasks left out: {found.told}" if found.told else ""
        raise DataError(f"no problems in {', '.join(missing)}; found: {there}{left_out}; add them{advice}")
    tasks = {
        split: {problem.task for problem in problems if problem.split == split} for split in config.splits
    }
    if empty := [split for split, names in tasks.items() if not names]:
        counts = ", ".join(f"{split} {len(names)}" for split, names in tasks.items())
        counts += f"; left out: {found.told}" if found.told else ""
        raise DataError(
            f"no tasks in split {', '.join(empty)} (tasks: {counts}); give more, other `shares`, or another `seed`"
        )
    learnt = [problem for problem in problems if problem.split == "sft"]
    answered = [problem for problem in learnt if problem.response]
    if learnt and not answered:
        raise DataError(
            f"{none_of(len(learnt), 'problem')} of split sft has an answer to learn from; give `response` in its rows "
            "(`solutions` in contest problems), or give sft no share in `shares`"
        )
    log.info("%d problems, %d of %d in sft with an answer", len(problems), len(answered), len(learnt))
