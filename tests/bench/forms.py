"""Measures what other forms of a run's own candidates cost: `python -m tests.bench.forms RUN`.

For each form: share of the test problems whose pick passes by the last reranker's score, where the form is read as it is and where
it is brought into normal form. Then how often the run's picker picks what the run's evaluation picked, and whether picks that
it says are too close to tell are right.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from selftrain import Picker
from selftrain.evaluation.pools import PoolProblem, load_pool, with_logprob
from selftrain.evaluation.scores import read_scores
from selftrain.store.runfile import stage_place

Form = Callable[[PoolProblem, str], tuple[str, str]]


def _whole(problem: PoolProblem, text: str) -> str:
    return problem.prompt + text + ("\n}\n" if problem.language == "sh" else "\n")


FORMS: dict[str, Form] = {
    "as sampled": lambda problem, text: (problem.prompt, text),
    "a line break at the end": lambda problem, text: (problem.prompt, text + "\n"),
    "blanks and line breaks at the end": lambda problem, text: (problem.prompt, text + "  \n\n"),
    "CRLF": lambda problem, text: (problem.prompt.replace("\n", "\r\n"), text.replace("\n", "\r\n")),
    "prompt without its last line break": lambda problem, text: (problem.prompt.rstrip("\n"), text),
    "whole programs": lambda problem, text: (problem.prompt, _whole(problem, text)),
    "whole programs in markdown": lambda problem, text: (
        problem.prompt,
        f"Here it is:\n\n```\n{_whole(problem, text)}```\n",
    ),
}


def main() -> None:
    """Print the figures of the run in the folder `sys.argv[1]`."""
    picker = Picker.load(sys.argv[1])
    run, last = picker.run, picker.alone
    scores = read_scores(stage_place(run, "evaluate"), "sft", [last])
    inputs = {
        "problems": stage_place(run, "prepare"),
        "sft.candidates": stage_place(run, "sample-sft-evaluation"),
        "sft.executions": stage_place(run, "execute-sft-evaluation"),
    }
    weights = {last: picker.evaluated["logprob_weights"][last]}
    problems = with_logprob(load_pool(inputs, "sft", "test", scores), weights).problems
    print(f"{Path(sys.argv[1]).name}: {last} alone on {len(problems)} test problems, picks that pass")
    for name, form in FORMS.items():
        print(f"  {name:<36} read as it is {_share(picker, problems, form, True):.3f}", end="")
        print(f"  in normal form {_share(picker, problems, form, False):.3f}", flush=True)
    empty = [(p.prompt, [*p.completions, ""]) for p in problems]
    won = sum(max(found) == found[-1] for found in picker.reranker.score_many(empty, exact=True))
    print(f"  an empty candidate beside the others would win {won} times")
    _compare(picker, problems)


def _share(picker: Picker, problems: tuple[PoolProblem, ...], form: Form, exact: bool) -> float:
    made = [[form(problem, text) for text in problem.completions] for problem in problems]
    given = [(texts[0][0], [text for _, text in texts]) for texts in made]
    found = picker.reranker.score_many(given, exact=exact)
    right = [p.passed[max(range(len(s)), key=s.__getitem__)] for p, s in zip(problems, found, strict=True)]
    return sum(map(bool, right)) / len(right)


def _compare(picker: Picker, problems: tuple[PoolProblem, ...]) -> None:
    same, near, right, sure = [0, 0], 0, 0, [0, 0]
    for problem in problems:
        own = problem.completions[problem.picks[picker.way]]
        given = picker.rank(
            problem.prompt, problem.completions, mean_logprobs=problem.mean_logprob.tolist(), exact=True
        )
        text = picker.rank(problem.prompt, problem.completions, problem.language)
        same[0] += problem.completions[given.best] == own
        same[1] += problem.completions[text.best] == own
        passed = bool(problem.passed[text.best])
        if text.close:
            near, right = near + 1, right + passed
        else:
            sure = [sure[0] + 1, sure[1] + passed]
    print(
        f"  {picker.way} picks what the evaluation picked: {same[0]} times with the run's log-probabilities, {same[1]} with its own"
    )
    print(
        f"  too close to tell: {near} picks, {right} of them pass; of the other {sure[0]} picks {sure[1]} pass"
    )


if __name__ == "__main__":
    main()
