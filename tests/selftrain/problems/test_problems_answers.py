"""Tests of cleaning the answers to learn from, which models wrote, and of counting them."""

from pathlib import Path

import pytest

from selftrain.config import JsonlConfig, MultiPLEConfig
from selftrain.problems.answers import Cleaned, clean
from selftrain.problems.read import find_problems
from tests.selftrain.problems.made import DESCRIPTIONS, PY_STOP, py_row, write_jsonl

PROMPT = "def f(n):\n"
BODY = "    return 2 * n"
BLOCK = f"```python\ndef f(n):\n{BODY}\n```"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (None, Cleaned(None, "")),
        (" \n", Cleaned(None, "")),
        (f"{BODY}\n", Cleaned(BODY, "as it is")),
        (f"{BODY}\nprint(f(3))", Cleaned(BODY, "cut")),
        (f"Here:\n{BLOCK}\nDone.", Cleaned(BODY, "cut")),
        (f"<think>\n{BLOCK}", Cleaned(None, "left out", "it ends inside of its thoughts")),
        (BLOCK.replace("(n)", "(m)"), Cleaned(None, "left out", "it needs another head")),
        (BLOCK.replace("def f", "import math\nONE = math.pi\ndef f").replace("2", "ONE"), Cleaned(None, "left out", "it needs imports, definitions")),
        ("\ndef f(n):\n    pass", Cleaned("    pass", "cut")),
        ("\n# nothing\n", Cleaned(None, "left out", "nothing of it is before the first stop token")),
    ],
)  # fmt: skip
def test_what_is_made_of_a_response(response: str | None, expected: Cleaned) -> None:
    assert clean(PROMPT, response, "py", ("\n# ", "\ndef"), "assert f(1) == 2") == expected


RESPONSES = (BODY, BLOCK, BLOCK.replace("(n", "(m"), f"{BLOCK}\n{BLOCK}", "```\n```")


def test_the_answers_of_a_source_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those that are used: of sft and validation."""
    rows = [py_row(f"Made_{at}", text, response=RESPONSES[at % 5]) for at, text in enumerate(DESCRIPTIONS)]
    write_jsonl(tmp_path / "train.jsonl", rows[:10])
    write_jsonl(tmp_path / "held.jsonl", rows[10:])
    shares = {"sft": 0.6, "rl": 0.2, "validation": 0.2}
    config = {"languages": ["py"], "shares": shares, "train": str(tmp_path / "train*"), "evaluation": str(tmp_path / "held*")}  # fmt: skip
    with caplog.at_level("WARNING"):
        found = find_problems(MultiPLEConfig.model_validate(config))
    used = {
        problem.id: problem.response for problem in found.problems if problem.split in ("sft", "validation")
    }
    assert found.answers.keys() == used.keys()
    for id, cleaned in found.answers.items():
        number = int(id.removeprefix("Made_").removesuffix(".py")) % 5
        assert cleaned.how == ("as it is", "cut", "left out", "cut", "left out")[number]
        assert used[id] == cleaned.text == (BODY if cleaned.how != "left out" else None)
    left = sum(cleaned.how == "left out" for cleaned in found.answers.values())
    assert f"{left} of {len(used)} answers cannot be learnt from" in caplog.text
    assert "it needs another head" in caplog.text


def test_answers_in_a_file_of_one_s_own(tmp_path: Path) -> None:
    """A completion stays as it is, to the last blank; an answer is taken apart."""
    rows = [
        {
            "task": f"t{at}",
            "language": "py",
            "prompt": f"# {text}\n{PROMPT}",
            "tests": f"assert f({at}) == {2 * at}",
            "stop_tokens": PY_STOP,
            "split": ("sft", "rl", "validation", "test")[at % 4],
            "response": (BLOCK, BODY, f"{BODY}  \n\n", BODY)[at % 4],
        }
        for at, text in enumerate(DESCRIPTIONS[:8])
    ]
    write_jsonl(tmp_path / "own.jsonl", rows)
    config = {"source": "jsonl", "languages": ["py"], "files": [str(tmp_path / "own.jsonl")]}
    found = find_problems(JsonlConfig.model_validate(config))
    assert {problem.task: problem.response for problem in found.problems if problem.response} == {
        "t0": BODY, "t4": BODY, "t2": f"{BODY}  \n\n", "t6": f"{BODY}  \n\n"
    }  # fmt: skip
    assert sorted(cleaned.how for cleaned in found.answers.values()) == ["as it is", "as it is", "cut", "cut"]
