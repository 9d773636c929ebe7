"""Tests of extracting a program from a model's answer (`sandbox.completion`), in all languages.

They cover which block and definition is taken, what it depends on, indentation, and answers that contain no program.
"""

import re
from collections.abc import Sequence

import pytest

from sandbox.client import Sandbox
from sandbox.completion import Unreadable, asked_function, extract_completion, extract_program, is_answer
from sandbox.grammars import GRAMMARS
from sandbox.languages import COMMON, IMAGES, LANGUAGES
from sandbox.lexer import masked
from sandbox.markdown import blocks
from sandbox.programs import assemble
from sandbox.verdicts import Program, Verdict
from tests.sandbox.answers import PIECES, styles
from tests.sandbox.answers_further import FURTHER
from tests.sandbox.conftest import build_image, need_backend

PY = 'def twice(n: int) -> int:\n    """ Double it.\n    >>> twice(2)\n    4\n    """\n'
PY_STOP = ("\ndef", "\n#", "\nif", "\nclass")
JS = "//Double it.\nfunction twice(n){\n"
JS_STOP = ("\nfunction ", "\n/*", "\n//", "\nconsole.log")
JS_TESTS = "const assert = require('node:assert');\nassert.equal(twice(2), 4);\n"
CPP = "#include<assert.h>\n// Double it.\nlong twice(long n) {\n"
CPP_TESTS = "}\nint main() {\n    assert(twice(2) == 4);\n}\n"
JAVA = "class Problem {\n    // Double it.\n    public static long twice(long n) {\n"
JAVA_TESTS = "    }\n    public static void main(String[] args) {\n    assert(twice(2l) == 4l);\n    }\n\n}\n"
SH = "#!/bin/bash\n# Double it.\n#\n# $1 is an integer\ntwice() {\n"
SH_TESTS = "}\n\n[[ $(twice 2) = 4 ]]\n"
TESTS = {"js": JS_TESTS, "cpp": CPP_TESTS, "java": JAVA_TESTS, "sh": SH_TESTS, "cs": JAVA_TESTS}


def completion(prompt: str, answer: str, language: str, stop_tokens: Sequence[str] = ()) -> str:
    return extract_completion(prompt, answer, language, stop_tokens, TESTS.get(language, ""))


def program(prompt: str, answer: str, language: str) -> str:
    made = extract_program(prompt, answer, language, TESTS.get(language, ""))
    return made.prompt + made.completion


# --- completions, and answers that hold nothing but the function


@pytest.mark.parametrize(
    ("language", "prompt", "text"),
    [
        ("py", PY, "    m = n\n    return m + n"),
        ("py", PY, "    total = n\n    def add(k):\n        return total + k\n    return add(n)"),
        ("py", PY, "    twice = n + n\n    return twice"),
        ("py", PY, '    return f"""\n```python\n{n}\n```\n"""'),
        ("py", PY, '    fence = "```"\n    return fence + str(n) + fence'),
        ("py", PY, "    '''\n~~~\n    '''\n    return 2 * n"),
        ("js", JS, "  return `\n```js\n${n}\n` + '```';\n}"),
        ("sh", SH, "    cat <<END\n```\n$1\n```\nEND"),
        ("cpp", CPP, "    /*\n```\n    */\n    return 2 * n;"),
        ("java", JAVA, "        return 2 * n;"),
        ("rs", "fn twice(n: isize) -> isize {\n", "    2 * n"),
    ],
)
def test_a_completion_stays_as_it_is(language: str, prompt: str, text: str) -> None:
    assert not is_answer(prompt, text, language)
    assert completion(prompt, text, language) == text


def test_a_completion_to_learn_from_ends_where_its_function_does() -> None:
    assert completion(PY, "    return 2 * n\nprint(twice(3))", "py", PY_STOP) == "    return 2 * n"
    assert completion(SH, "    echo $((2 * $1))\n}\ntwice 3", "sh") == "    echo $((2 * $1))"
    assert completion(JS, "    return 2 * n;\n}\nlet three = 3;", "js") == "    return 2 * n;\n}"
    assert completion(PY, "    m = n\n# half way\n    return 2 * m", "py", PY_STOP) == "    m = n"


NAMES = {
    "py": ("def solve(n):\n", "def NAME(n):\n    return n\n\ndef solve(n):\n    return NAME(n)\n"),
    "js": (
        "function solve(n){\n",
        "function NAME(n){\n  return n;\n}\nfunction solve(n){\n  return NAME(n);\n}\n",
    ),
    "cs": (
        "class Problem {\n    public static long Solve(long n) {\n",
        "class Problem {\n    static long NAME(long n) {\n        return n;\n    }\n"
        "    public static long Solve(long n) {\n        return NAME(n);\n    }\n}\n",
    ),
    "cpp": (
        "long solve(long n) {\n",
        "long NAME(long n) {\n    return n;\n}\nlong solve(long n) {\n    return NAME(n);\n}\n",
    ),
}


@pytest.mark.parametrize("language", NAMES)
@pytest.mark.parametrize("name", ["求和", "é", "größe", "übung"])
def test_functions_with_names_in_any_script_come_along(language: str, name: str) -> None:
    prompt, answer = (text.replace("NAME", name) for text in NAMES[language])
    found = extract_program(prompt, f"```\n{answer}```\n", language, loosely=True)
    assert (found.prompt + found.completion).count(f"{name}(") == 2


def test_a_definition_without_a_name_is_a_statement() -> None:
    prompt = NAMES["cs"][0]
    for text in ("def \n9\n(", "int 9(", "x 9(int n) { return n; }"):
        assert not is_answer(prompt, text, "cs")


def test_the_prompt_repeated() -> None:
    assert completion(PY, PY + "    return 2 * n\n", "py", PY_STOP) == "    return 2 * n"
    assert completion(JAVA, JAVA + "        return 2 * n;\n    }\n}\n", "java") == "        return 2 * n;"
    assert is_answer(PY, "\n" + PY + "    return 2 * n\n", "py")


def test_a_definition_without_markdown() -> None:
    """In most languages a definition cannot continue the prompt, so it is an answer; prose before it means that it is not code."""
    assert completion(CPP, "long twice(long n) {\n    return 2 * n;\n}\n", "cpp") == "    return 2 * n;"
    assert is_answer(CPP, "#include <vector>\nlong twice(long n) {\n    return 2 * n;\n}\n", "cpp")
    assert not is_answer(PY, "The function is:\n\ndef twice(n):\n    return 2 * n\n", "py")
    assert not is_answer(PY, "    return 2 * n\n\ndef twice(n):\n    return n\n", "py")


def test_a_markdown_block_with_talk_and_an_example_call() -> None:
    answer = (
        "Sure, here it is:\n```js\n// Double it.\nfunction twice(n) {\n  // easy\n  return 2 * n;\n}\n\n"
        "// Example usage:\nconsole.log(twice(3));\n```\nThis function doubles."
    )
    assert completion(JS, answer, "js", JS_STOP) == "  // easy\n  return 2 * n;\n}"


def test_the_closing_brace_goes_where_the_tests_bring_it() -> None:
    answer = "```cpp\n#include <vector>\nlong twice(long n) {\n    if (n) {\n        n += n;\n    }\n    return n;\n}\nint main() {}\n```"
    body = "    if (n) {\n        n += n;\n    }\n    return n;"
    assert extract_program(CPP, answer, "cpp", CPP_TESTS).completion == body
    assert extract_program(CPP, answer, "cpp", "int main() { return twice(0); }").completion == body + "\n}"


def test_a_class_is_closed_where_the_tests_do_not() -> None:
    answer = "```java\nclass A {\n  static long twice(long n) {\n    return 2 * n;\n  }\n}\n```"
    body = "        return 2 * n;"
    after = ["\n    }\n}", "\n    }", ""]
    tests = ["class Main { }", "    static void more() { }\n}", JAVA_TESTS]
    for ending, brought in zip(after, tests, strict=True):
        assert (
            extract_program(JAVA, answer, "java", brought).completion
            == body.replace("        ", "      ", 1) + ending
        )


def test_the_body_moves_to_the_indentation_of_the_prompt() -> None:
    """Two spaces of class indentation become four; otherwise the inner brace, at four, would end the method."""
    answer = "class Problem {\n  static long twice(long n) {\n    if (n > 0) {\n      n += n;\n    }\n    return n;\n  }\n}"
    expected = "      if (n > 0) {\n        n += n;\n      }\n      return n;"
    assert completion(JAVA, answer, "java", ("\n    }\n",)) == expected
    narrow = "```python\ndef twice(n):\n  if n:\n    return 2 * n\n  return 0\n```"
    assert completion(PY, narrow, "py") == "    if n:\n      return 2 * n\n    return 0"
    tabs = "```python\ndef twice(n):\n\tif n:\n\t\treturn 2 * n\n\treturn 0\n```"
    assert completion(PY, tabs, "py") == "    if n:\n    \treturn 2 * n\n    return 0"


def test_a_comment_at_the_left_margin_does_not_say_where_the_body_stands() -> None:
    prompt = 'def f(x):\n# f(1) is 2\n    """ Add one. """\n'
    text = program(prompt, f"```python\n{prompt}    return x + 1\n```", "py")
    scope: dict[str, object] = {}
    exec(text, scope)
    assert eval("f(1)", scope) == 2


def test_lines_inside_of_strings_do_not_move() -> None:
    answer = 'def twice(n):\n  text = """\n  a\n    b"""\n  return text\n'
    assert completion(PY, answer, "py") == '    text = """\n  a\n    b"""\n    return text'


def test_an_opening_brace_on_its_own_line() -> None:
    answer = "```csharp\nclass Problem {\n    static long Twice(long n)\n    {\n        return 2 * n;\n    }\n}\n```"
    prompt = "class Problem {\n    // Double it.\n    public static long Twice(long n) {\n"
    assert completion(prompt, answer, "cs", ("\n    }\n",)) == "        return 2 * n;"


@pytest.mark.parametrize(
    ("language", "prompt", "answer", "expected"),
    [
        ("py", PY, "def twice(n): return 2 * n", "    return 2 * n"),
        ("js", JS, "function twice(n) { return 2 * n; }\nfunction other() {\n}", "    return 2 * n;\n}"),
        ("cpp", CPP, "long twice(long n) { return 2 * n; }", "    return 2 * n;"),
        ("js", JS, "const twice = (n) => {\n  return 2 * n;\n};\n", "  return 2 * n;\n}"),
        ("js", JS, "```js\nexport const twice = n => 2 * n; // so\n```", "    return 2 * n;\n}"),
        ("js", JS, "```js\nlet twice = function (n) {\n  return 2 * n;\n}\n```", "  return 2 * n;\n}"),
        ("js", "function makeTwo(n) {\n", "function make_two(n) {\n  return n;\n}", "  return n;\n}"),
        ("php", "<?php\nfunction make_two($n) {\n", "<?php\nfunction makeTwo($n) {\n  return $n;\n}\n?>", "  return $n;\n}"),
        ("js", JS, "```\nfunction doubled(n) {\n  return 2 * n;\n}\n```", "  return 2 * n;\n}"),
        ("js", JS.rstrip("\n"), "return 2 * n;\n}", "\nreturn 2 * n;\n}"),
        ("py", PY + "    ", "    return 2 * n\n", "return 2 * n"),
        ("py", PY, "```py\nreturn 2 * n\n```", "    return 2 * n"),
        ("rs", "fn twice(n: isize) -> isize {\n", "```rust\n    2 * n\n}\n```", "    2 * n\n}"),
        ("cobol", "x", "```\nMOVE A TO B.\n```\n", "\nMOVE A TO B."),
    ],
)  # fmt: skip
def test_what_is_taken(language: str, prompt: str, answer: str, expected: str) -> None:
    assert completion(prompt, answer, language) == expected


def test_types_in_the_signature_do_not_hide_the_body() -> None:
    prompt = "function pairs(xs: number[]): {a: number}[] {\n"
    answer = "```ts\nfunction pairs(xs: Array<number>): {a: number}[] {\n  return xs.map(a => ({a}));\n}\n```"
    assert completion(prompt, answer, "ts") == "  return xs.map(a => ({a}));\n}"


def test_a_call_of_the_function_is_not_its_definition() -> None:
    answer = (
        "long twice(long n) {\n    if (n == 0) {\n        return 0;\n    }\n    return 2 + twice(n - 1);\n}"
    )
    expected = "    if (n == 0) {\n        return 0;\n    }\n    return 2 + twice(n - 1);"
    assert completion(CPP, answer, "cpp", ("\n}",)) == expected


def test_another_name_is_the_prompts_in_recursion_too() -> None:
    answer = "```js\nfunction Twice(n) {\n  return n ? 2 + Twice(n - 1) : 0; // Twice, 'Twice'\n}\n```"
    assert completion(JS, answer, "js") == "  return n ? 2 + twice(n - 1) : 0; // Twice, 'Twice'\n}"


def test_members_of_the_same_name_keep_it() -> None:
    answer = "```js\nfunction toUpperCase(n) {\n  return n.toUpperCase() + toUpperCase.name;\n}\n```"
    assert completion(JS, answer, "js") == "  return n.toUpperCase() + twice.name;\n}"


def test_a_docstring_is_not_repeated() -> None:
    answer = 'def twice(n):\n    """Double it.\n\n    Really.\n    """\n    return 2 * n\n'
    assert completion(PY, answer, "py") == "    return 2 * n"
    assert completion(PY, 'def twice(n):\n    """Nothing."""\n', "py") == '    """Nothing."""'


# --- which block


FIRST, SECOND = "def twice(n):\n    return n", "def twice(n):\n    return 2 * n"


@pytest.mark.parametrize(
    "answer",
    [
        f"Draft:\n```python\n{FIRST}\n```\nFinal:\n```python\n{SECOND}\n```",
        f"<think>\n```python\n{FIRST}\n```\n</think>\n```python\n{SECOND}\n```",
        f"<thinking>It's not closed: ```python\n{FIRST}\n</thinking>\n```python\n{SECOND}\n```",
        f"Hm. ```python\n{FIRST}\n```\nno\n</think>\n\n```python\n{SECOND}\n```",
        f"```python\n{SECOND}\n```\nIn C:\n```c\nlong twice(long n) {{ return n; }}\n```",
        f"```python\n{SECOND}\n```\nOutput:\n```text\ndef twice(n):\n    return 7\n```",
        f"```python\n{SECOND}\n```\nUse it:\n```python\nprint(twice(2))\n```\n```\n4\n```",
        f"```bash\npip install x\n```\n```\n{SECOND}\n```",
        f"~~~py\n{SECOND}\n~~~",
        f"````python\n{SECOND}\n````",
        f"```{{.python .numberLines}}\n{SECOND}\n```",
        f"``` python title=\"twice.py\"\n{SECOND}\n```",
        f"```lang-python\n{SECOND}\n```",
        f"````markdown\n# Twice\n```python\n{SECOND}\n```\n````",
        f"```python\n{SECOND}",
        f"```python\n{SECOND}```",
        f"```python\n{FIRST}\n```python\n{SECOND}\n```",
        f"```javascript\n{SECOND}\n```",
        f"   ```python\n   {SECOND}\n   ```".replace("\n    return", "\n       return"),
        f"- ```python\n  {SECOND}\n  ```".replace("\n    return", "\n      return"),
        f"```python\r\n{SECOND}\r\n```\r\n".replace("n):\n", "n):\r\n"),
        f"<think>no</think>\n{SECOND}\n",
        "> ```python\n> def twice(n):\n>     return 2 * n\n> ```\n",
        f"\ufeff```python\n{SECOND}\n```",
        f"```Python3\n{SECOND}\n```",
        f"```py:src/twice.py\n{SECOND}\n```",
        f"```\n#!/usr/bin/env python\n{SECOND}\n```",
        f"```python\n{SECOND}\n`````",
        f"```diff\n- x\n```\n1) So:\n\n    ```python\n    {SECOND}\n    ```".replace("\n    return", "\n        return"),
        f"<reasoning>\n{FIRST}\n</reasoning>\n<answer>\n```python\n{SECOND}\n```\n</answer>",
    ],
)  # fmt: skip
def test_the_last_block_that_defines_the_function(answer: str) -> None:
    assert is_answer(PY, answer, "py")
    assert completion(PY, answer, "py") == "    return 2 * n"


def test_fences_inside_of_a_block_s_strings() -> None:
    code = 'def twice(n):\n    text = """\n```python\nx\n```\n"""\n    return text + "```"'
    assert (
        program(PY, f"It's this:\n\n```python\n{code}\n```\nThat's all.", "py") == PY + code.split("\n", 1)[1]
    )
    script = "twice() {\n  cat <<'END'\n```\nit's\n```\nEND\n}"
    assert "it's\n```\nEND" in program(SH, f"```bash\n{script}\n```\n\nIt's done.", "sh")


def test_a_string_that_never_ends_does_not_swallow_the_answer() -> None:
    answer = "```python\ndef twice(n):\n    return '''2 * n\n```\nNo:\n```python\ndef twice(n):\n    return 2 * n\n```"
    assert completion(PY, answer, "py") == "    return 2 * n"


def test_what_a_block_of_the_prompt_s_own_holds() -> None:
    """The prompt opened a block, and the completion closes it."""
    for rest in ("", "\nThis doubles.", "\nUse it:\n\n```python\nprint(twice(2))\n```\n"):
        assert extract_program(PY, f"    return 2 * n\n```{rest}", "py") == (PY, "    return 2 * n", ())


# --- what comes along


def test_imports_constants_and_functions_come_along() -> None:
    answer = (
        "```python\nimport math\nimport os\nfrom typing import List\n\nFACTOR = 2\nTABLE = {}\nTABLE[1] = FACTOR\nUNUSED = input()\n\n"
        "def times(n):\n    return TABLE[1] * more(n)\n\ndef twice(n):\n    return math.floor(times(n))\n\ndef more(n):\n    return n\n\n"
        "def unused():\n    return os.getcwd()\n\ndef test_twice():\n    assert twice(2) == 4\n\nprint(twice(FACTOR))\n"
        "if __name__ == '__main__':\n    test_twice()\n```"
    )  # fmt: skip
    assert program("from typing import List\n" + PY, answer, "py") == (
        "from typing import List\nimport math\nFACTOR = 2\nTABLE = {}\nTABLE[1] = FACTOR\ndef times(n):\n    return TABLE[1] * more(n)\n"
        f"def more(n):\n    return n\n{PY}    return math.floor(times(n))"
    )


def test_several_blocks_make_the_answer() -> None:
    answer = (
        "First:\n```python\nimport math\n```\nA helper:\n```python\ndef half(n):\n    return math.floor(n / 2)\n```\nA draft:\n"
        "```python\ndef more(n):\n    return n\n\ndef twice(n):\n    return 0\n```\n"
        "So:\n```python\ndef twice(n):\n    return 4 * half(more(n))\n```"
    )
    assert program(PY, answer, "py") == (
        "import math\ndef half(n):\n    return math.floor(n / 2)\ndef more(n):\n    return n\n" + PY + "    return 4 * half(more(n))"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("language", "prompt", "answer", "expected"),
    [
        ("py", PY, "def twice(number):\n    return 2 * number", "def twice(number):\n    return 2 * number"),
        (
            "py",
            PY,
            "from functools import cache\n\n@cache\ndef twice(n):\n    return 2 * n",
            "from functools import cache\n@cache\ndef twice(n):\n    return 2 * n",
        ),
        ("py", PY, "twice = lambda n: 2 * n", "twice = lambda n: 2 * n"),
        (
            "cpp",
            CPP,
            "#include <cmath>\nusing namespace std;\nint twice(int k) {\n    return 2 * k;\n}\n",
            "#include<assert.h>\n#include <cmath>\nusing namespace std;\n// Double it.\nint twice(int k) {\n    return 2 * k;",
        ),
        (
            "java",
            JAVA,
            "import java.util.List;\nclass A {\n    long one(long k) { return k; }\n    public static long twice(long k) {\n        return 2 * k;\n    }\n}",
            "class Problem {\n    // Double it.\n    public static long twice(long k) {\n        return 2 * k;",
        ),
        ("js", JS, "async function twice(n) {\n  return 2 * n;\n}", "//Double it.\nasync function twice(n) {\n  return 2 * n;\n}"),
    ],
)  # fmt: skip
def test_another_head_takes_the_place_of_the_prompt_s(
    language: str, prompt: str, answer: str, expected: str
) -> None:
    assert program(prompt, f"```\n{answer}\n```", language) == expected
    with pytest.raises(Unreadable, match="another head"):
        completion(prompt, f"```\n{answer}\n```", language)


def test_what_to_learn_from_needs_nothing_outside_of_the_function() -> None:
    helper = "function add(a, b) {\n  return a + b;\n}\n"
    with pytest.raises(Unreadable, match="it needs definitions"):
        completion(JS, helper + "function twice(n) {\n  return add(n, n);\n}", "js")
    assert completion(JS, helper + "function twice(n) {\n  return n + n;\n}", "js") == "  return n + n;\n}"
    with pytest.raises(Unreadable, match="it needs imports"):
        completion(PY, "import math\ndef twice(n):\n    return math.prod([2, n])", "py")


def test_php_s_tags_stay_outside() -> None:
    answer = "```php\n<?php\nfunction f($n) {\n  return g($n);\n}\nfunction g($n) {\n  return '?>' . $n;\n}\n?>\n```"
    made = extract_program("<?php\n// So.\nfunction f($n) {\n", answer, "php")
    assert made.prompt == "<?php\nfunction g($n) {\n  return '?>' . $n;\n}\n// So.\nfunction f($n) {\n"


def test_names_that_the_function_binds_itself_are_not_those_outside() -> None:
    answer = (
        "```js\nfunction twice(n) {\n  const result = 2 * n;\n  return result;\n}\nconst n = 3;\nconst result = twice(n);\n"
        "console.log(result);\n```"
    )
    assert completion(JS, answer, "js") == "  const result = 2 * n;\n  return result;\n}"


def test_a_function_is_needed_where_a_variable_has_its_name() -> None:
    answer = (
        "```java\nclass Problem {\n    public static long twice(long n) {\n        long more = more(n);\n        return more;\n    }\n\n"
        "    static long more(long k) {\n        return 2 * k;\n    }\n}\n```"
    )
    assert "static long more(long k)" in extract_program(JAVA, answer, "java", JAVA_TESTS).prompt


def test_what_the_tests_bind_is_left_to_them() -> None:
    answer = "```js\nconst assert = require('assert');\nfunction twice(n) {\n  assert(n >= 0);\n  return 2 * n;\n}\n```"
    assert program(JS, answer, "js").count("assert =") == 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("```js\nfunction a(n) {\n}\nfunction b(n) {\n}\n```", "no block of it defines twice; defined: a, b"),
        ("```js\nfunction a(n, m) {\n}\n```", "no block of it defines twice; defined: a"),
        ("<think>\n```js\nfunction twice(n) {}\n```", "it ends inside of its thoughts"),
        ("```text\nnothing\n```", "it holds no code"),
        ("```js\n```\nSorry.", "it holds no code"),
    ],
)
def test_what_cannot_be_taken_apart_is_said_to_be_so(answer: str, why: str) -> None:
    with pytest.raises(Unreadable, match=re.escape(why)):
        extract_program(JS, answer, "js", JS_TESTS)


def test_the_function_that_a_prompt_asks_for() -> None:
    assert [asked_function(pieces.prompt, name) for name, pieces in PIECES.items()] == [
        "Squares" if name == "cs" else "squares" for name in PIECES
    ]
    assert asked_function("Add two numbers.", "py") is None
    assert asked_function("x", "cobol") is None


# --- all languages


def test_every_language_has_its_patterns() -> None:
    assert LANGUAGES.keys() == GRAMMARS.keys() == PIECES.keys() == FURTHER.keys()
    assert all(masked("", name).closed for name in LANGUAGES)


LEXED = [
    ("py", "x = f\"a{h('b')}{{c}}\" # no"),
    ("py", "s = '''it's\n```\n''' + r'\\' + 'a\\'b'"),
    ("js", "s = `a ${f(`x`, '}')} b`; r = x.split(/[/']/) / 2 // c"),
    ("sh", 'echo "a $(g "x y") ${#z}" \'b"\' $((1<<n)) \\\' # c'),
    ("sh", "cat <<'E' | g 'k'\nit's\nE\nread <<< \"$y\""),
    ("rb", 's = "a#{g(\'b\')}"; x =~ /["#]/ ? %w[a b] : ?a # c'),
    ("rb", "f(<<~TXT, 1)\n  it's\nTXT\ng"),
    ("rs", "fn f<'a>(x: &'a str) { r#\"a\"b\"# ; 'x' } /* a /* b */ c */"),
    ("cpp", 'auto s = R"x(a)"b)x"; int n = 1\'000; char c = \'"\'; // d'),
    ("lua", "s = [==[ a ]] b ]==] --[[ c\n d ]] x = 'a\"' -- e"),
    ("pl", "my $n = $#{$x}; s/\"a/b'/g; qw(a'b c); $h{s} = 1; # d"),
    ("php", '$s = "a {$x["k"]} b"; $t = \'a\\\'b\'; # c'),
    ("cs", 'var s = $"a {F("b")} {{c}}"; var v = @"a""b\\"; var c = \'"\';'),
    ("r", 'x <- r"(a"b)"; y <- \'a"b\' # c'),
    ("d", "auto s = `a\"b`; /+ a /+ b +/ c +/ char c = '\"';"),
    ("go", 's := `a"b` + "c`d"; r := \'"\' // e'),
    ("java", 'String s = """\n a "b" it\'s\n """; char c = \'"\';'),
    ("ml", "let f' x = 'a' (* a (* b *) c *) ^ \"it's\""),
    ("hs", "f' x = 'a' : \"it's\" {- a {- b -} c -} --> 1 -- d"),
    ("ex", 'x = "a#{g(\'b\')}"; y = ~r/"/; z = ?" # d'),
    ("scala", 's"a ${f("b")} c"; """it\'s "x" """; \'"\' // d'),
    ("clj", '(def c \\") (f "a;b" #"x\\"y") ; d'),
    ("rkt", '(define c #\\") (f "a;b") #| x #| y |# z |#'),
]
BARE = r"""
x = ___{h(___)}______
s = _______|___|___ + r_______a\___
s = ___${f(___, ___)}___; r = x.split(______) / 2
echo ___$(g _____)_${#z}_ ____ $((1<<n)) __
cat <<'E' | g ___|____|_~read <<< ____
s = __#{g(___)}_; x =~_______ ? _______ : __
f(<<~TXT, 1)|______|___~g
fn f<'a>(x: &'a str) { ________ ; ___ }
auto s = ___________; int n = 1'000; char c = ___;
s = ________________       |      x = ____
my $n = $#{$x}; _________; _________; $h{s} = 1;
$s = ___{$x[___]}___; $t = ______;
var s = ____{F(___)}_______; var v = ________; var c = ___;
x <- ________; y <- _____
auto s = _____;                   char c = ___;
s := _____ + _____; r := ___
String s = ___|___________|____; char c = ___;
let f' x = ___                   ^ ______
f' x = ___ : ______                   --> 1
x = __#{g(___)}_; y = _____; z = __
____${f(___)}___; _______________; ___
(def c __) (f _____ #______)
(define c ___) (f _____)
"""


def test_strings_and_comments_are_told_from_code() -> None:
    found = [masked(code, language) for language, code in LEXED]
    assert all(one.closed for one in found)
    shown = [one.text.replace("\0", "_").replace("\1", "|").replace("\n", "~").rstrip() for one in found]
    assert shown == BARE.strip().split("\n")


def test_blocks_of_a_code_without_markdown_are_none() -> None:
    assert blocks(PY, "    return 2 * n", "py") is None
    assert blocks(PY, "Nothing to see.", "py") is None


SLOW = {
    **dict.fromkeys(("java", "ts", "cs", "ex", "rkt"), ("block", "one_line", "renamed", "helper_below", "imports", "whole_file", "held")),
    **dict.fromkeys(("scala", "clj"), ("renamed", "helper_below", "whole_file", "held")),
}  # fmt: skip
"""Languages whose programs take a second or more, with the styles in which they are run; the others are run in all."""


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES)
def test_an_answer_in_any_style_is_the_program_that_it_stands_for(image: str) -> None:
    """All answers are judged in one batch: right except where the last block is wrong. Many styles give the same program, which is run
    once."""
    need_backend("docker")
    if image != COMMON:
        build_image(image)
    programs = []
    for name, pieces in PIECES.items():
        if LANGUAGES[name].image != image:
            continue
        for style, answer in styles(pieces):
            if style == "bare":
                assert not is_answer(pieces.prompt, answer, name)
            elif style in SLOW.get(name, (style,)):
                assert is_answer(pieces.prompt, answer, name)
                programs.append(made(f"{name} {style}", name, pieces.prompt, answer, pieces.tests))
        prompt, tests, answers = FURTHER[name]
        for number, answer in enumerate(answers):
            programs.append(made(f"{name} {number}", name, prompt, answer, tests))
    with Sandbox("docker", workers=2) as box:
        found = {result.id: result for result in box.run(programs)}
    wrong = {id for id in found if id.endswith("wrong_in_the_end")}
    for id, result in found.items():
        wanted = Verdict.wrong_answer if id in wrong else Verdict.passed
        assert result.verdict is wanted, (id, result.verdict, result.stderr[-500:])
    print(sum(result.cpu_seconds for result in found.values() if not result.cached), "s of CPU")


def made(id: str, language: str, prompt: str, answer: str, tests: str) -> Program:
    answered = extract_program(prompt, answer, language, tests)
    return assemble(language, answered.prompt, answered.completion, tests).program(id, language)


def test_classes_nested_by_the_thousand_are_an_answer_without_the_function():
    prompt = "#include <vector>\nint f(int x) {\n"
    with pytest.raises(Unreadable, match="no block of it defines f; defined: A"):
        extract_program(prompt, "```cpp\n" + "class A {\n" * 3000 + "```\n", "cpp")


@pytest.mark.parametrize(
    ("prompt", "answer", "body"),
    [
        ("def f(n):  # doubles\n", "def f(n):  # doubles\n    return 2 * n", "    return 2 * n"),
        (
            "def f(n):  # doubles\n",
            "def f(n):  #doubles\n    # by two\n    return 2 * n",
            "    # by two\n    return 2 * n",
        ),
        ("def f(n):\n    # doubles\n", "def f(n):\n    # doubles\n    return 2 * n", "    return 2 * n"),
        (
            'def f(n):  # doubles\n    """Two."""\n    # n\n',
            'def f(n):  # doubles\n    """Two."""\n    # n\n    return 2 * n',
            "    return 2 * n",
        ),
        ("def f(n):  # doubles\n", "def f(n):  # twice\n    return 2 * n", "    # twice\n    return 2 * n"),
        ("def f(n):\n", "def f(n):  # doubles\n    return 2 * n", "    # doubles\n    return 2 * n"),
    ],
)
def test_comments_of_the_prompt_are_not_repeated(prompt: str, answer: str, body: str):
    assert extract_program(prompt, f"```python\n{answer}\n```\n", "py") == (prompt, body, ())
