"""Tests of the messages of prompt style `chat`: what is asked, what SFT learns, and what is read from an answer."""

import os
from pathlib import Path

import pytest

from sandbox.programs import assemble
from selftrain.config import BankConfig, ExecuteConfig, MultiPLEConfig
from selftrain.problems.chat import answer, completion_of, is_whole, question, source_of
from selftrain.problems.read import read_problems
from selftrain.records import Problem
from selftrain.stages.execute import programs
from tests.needs import need

LANGUAGES = ("py", "cpp", "java", "php", "ts", "cs", "sh", "js")
PROMPT = 'def area(r):\n    """ Area of a circle. """\n'
PROBLEM = Problem(
    "area.py", "area", "py", PROMPT, "assert round(area(1), 2) == 3.14\n", "rl", "made", ("\ndef", "\n#", "\nimport")
)  # fmt: skip


def test_the_question_shows_the_language_and_the_prompt_in_a_block() -> None:
    said = question(PROMPT, "py")
    assert said.startswith("Complete this Python code. Answer with one code block")
    assert said.endswith('\n\n```python\ndef area(r):\n    """ Area of a circle. """\n```')
    assert question("int f() {\n", "cpp").startswith("Complete this C++ code.")
    assert question("int f() {\n", "cpp").endswith("\n\n```cpp\nint f() {\n```")


def test_the_answer_to_learn_from_closes_what_the_tests_close() -> None:
    assert answer(PROMPT, "    return 3\n", "py") == f"```python\n{PROMPT}    return 3\n```"
    java = "class Problem {\n    public static int f() {\n"
    assert answer(java, "        return 1;\n", "java") == f"```java\n{java}        return 1;\n    }}\n}}\n```"
    script = "solve() {\n"
    assert answer(script, '    echo "${1}"', "sh") == '```bash\nsolve() {\n    echo "${1}"\n}\n```'


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_response_comes_back_from_the_answer_that_holds_it(language: str) -> None:
    sizes = {"sft": 40, "rl": 1, "validation": 1, "test": 1}
    found = [p for p in read_problems(BankConfig(languages=(language,), sizes=sizes)) if p.response]
    assert len(found) == 40
    for problem in found:
        back = completion_of(problem, answer(problem.prompt, problem.response or "", language), "chat")
        assert back.rstrip() == (problem.response or "").rstrip()
        source = assemble(language, *source_of(problem.prompt, back, "chat"), problem.tests).source
        plain = assemble(language, problem.prompt, (problem.response or "").rstrip(), problem.tests).source
        marks = ("end-", "\n")  # the marker is a digest of the program with its white space
        assert source.split(marks[0])[0].split() == plain.split(marks[0])[0].split()


def test_real_responses_come_back() -> None:
    folder = Path(os.environ.get("MULTIPL_E_DIR", ""))
    need("MULTIPL_E_DIR" in os.environ and folder.is_dir(), "MULTIPL_E_DIR names no folder with problems")
    found = read_problems(
        MultiPLEConfig(train=(f"{folder}/mbpp-*.jsonl",), evaluation=(f"{folder}/humaneval-py.jsonl",))
    )
    learnt = [p for p in found if p.response][::4]
    other = [
        p.id
        for p in learnt
        if completion_of(p, answer(p.prompt, p.response or "", p.language), "chat").rstrip()
        != (p.response or "").rstrip()
    ]
    assert len(learnt) > 200
    assert len(other) <= 2, other  # answers that repeat a comment of the prompt, or are no program


def test_a_completion_is_what_the_block_adds_to_the_prompt() -> None:
    text = f"Sure.\n\n```python\n{PROMPT}    pi = 3.14159\n    return pi * r * r\n```\n\n# Why\nimport this"
    assert completion_of(PROBLEM, text, "chat") == "    pi = 3.14159\n    return pi * r * r"


def test_stop_tokens_cut_completions_and_not_answers() -> None:
    assert completion_of(PROBLEM, "    return 3\n\ndef g():", "completion") == "    return 3\n"
    text = f"Here.\nimport what?\n```python\n{PROMPT}    return 3\n```"
    assert completion_of(PROBLEM, text, "chat") == "    return 3"


def test_a_program_that_needs_more_than_a_completion_is_whole() -> None:
    text = "```python\nimport math\n\ndef area(r):\n    return math.pi * square(r)\n\ndef square(r):\n    return r * r\n```"
    whole = completion_of(PROBLEM, text, "chat")
    assert is_whole(whole)
    assert completion_of(PROBLEM, answer(PROMPT, whole, "py"), "chat") == whole, "it is its own answer"
    prompt, source = source_of(PROMPT, whole, "chat")
    assert prompt == ""
    scope: dict[str, object] = {}
    exec(source + "\n" + PROBLEM.tests, scope)
    assert source_of(PROMPT, whole, "completion") == (PROMPT, whole), "a completion is never taken for one"
    [program] = programs(PROBLEM, "x", whole, ExecuteConfig(), "chat")
    assert program.source.startswith(source)
    assert "```" not in program.source


@pytest.mark.parametrize(
    "text", ["I cannot do that.", "", "```python\nclass A:\n    pass\n```", "```", "<think>what"]
)
def test_an_answer_without_the_program_stays_as_it_is(text: str) -> None:
    assert completion_of(PROBLEM, text, "chat").strip() == text.strip()


def test_an_answer_that_the_longest_completion_cut_off_is_read_as_far_as_it_goes() -> None:
    assert completion_of(PROBLEM, f"```python\n{PROMPT}    return r", "chat") == "    return r"
