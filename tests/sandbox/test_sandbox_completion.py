"""The rule that turns an answer into the text that belongs after the prompt."""

import pytest

from sandbox.completion import extract_completion

PY = 'def twice(n: int) -> int:\n    """ Double it.\n    >>> twice(2)\n    4\n    """\n'
PY_STOP = ("\ndef", "\n#", "\nif", "\nclass")
JS = "//Double it.\nfunction twice(n){\n"
JS_STOP = ("\nfunction ", "\n/*", "\n//", "\nconsole.log")
CPP = "#include<assert.h>\n// Double it.\nlong twice(long n) {\n"
JAVA = "class Problem {\n    // Double it.\n    public static long twice(long n) {\n"
SH = "#!/bin/bash\n# Double it.\n#\n# $1 is an integer\ntwice() {\n"


def test_a_bare_body_stays_as_it_is() -> None:
    assert (
        extract_completion(PY, "    m = n\n    return m + n \n\n", "py", PY_STOP)
        == "    m = n\n    return m + n"
    )


def test_a_bare_body_with_a_function_of_its_own() -> None:
    body = "    total = n\n    def add(k):\n        return total + k\n    return add(n)"
    assert extract_completion(PY, body, "py", PY_STOP) == body


def test_a_bare_body_ends_where_its_function_does() -> None:
    assert extract_completion(PY, "    return 2 * n\nprint(twice(3))", "py", PY_STOP) == "    return 2 * n"
    assert extract_completion(SH, "    echo $((2 * $1))\n}\ntwice 3", "sh") == "    echo $((2 * $1))"
    assert extract_completion(JS, "    return 2 * n;\n}\nlet three = 3;", "js") == "    return 2 * n;\n}"


def test_the_prompt_repeated() -> None:
    assert extract_completion(PY, PY + "    return 2 * n\n", "py", PY_STOP) == "    return 2 * n"
    assert (
        extract_completion(JAVA, JAVA + "        return 2 * n;\n    }\n}\n", "java")
        == "        return 2 * n;"
    )


def test_a_markdown_block_with_talk_and_an_example_call() -> None:
    answer = (
        "Sure, here it is:\n```js\n// Double it.\nfunction twice(n) {\n  // easy\n  return 2 * n;\n}\n\n"
        "// Example usage:\nconsole.log(twice(3));\n```\nThis function doubles."
    )
    assert extract_completion(JS, answer, "js", JS_STOP) == "  // easy\n  return 2 * n;\n}"


def test_the_block_that_defines_the_function_is_taken() -> None:
    answer = "First run\n```bash\necho hello\n```\nthen\n```bash\ntwice () {\n  echo $(($1 + $1))\n}\n```\n"
    assert extract_completion(SH, answer, "sh", ("\n}",)) == "  echo $(($1 + $1))"


def test_a_block_that_was_cut_off_at_the_token_limit() -> None:
    assert (
        extract_completion(PY, "```python\ndef twice(n):\n    m = n + n\n    ret", "py")
        == "    m = n + n\n    ret"
    )


def test_the_closing_brace_goes_where_the_tests_bring_it() -> None:
    answer = "```cpp\n#include <vector>\nlong twice(long n) {\n    if (n) {\n        n += n;\n    }\n    return n;\n}\nint main() {}\n```"
    assert (
        extract_completion(CPP, answer, "cpp", ("\n}",))
        == "    if (n) {\n        n += n;\n    }\n    return n;"
    )


def test_the_body_moves_to_the_indentation_of_the_prompt() -> None:
    """Two spaces of class indentation become four; else the inner brace, at four, would end the method."""
    answer = "class Problem {\n  static long twice(long n) {\n    if (n > 0) {\n      n += n;\n    }\n    return n;\n  }\n}"
    expected = "      if (n > 0) {\n        n += n;\n      }\n      return n;"
    assert extract_completion(JAVA, answer, "java", ("\n    }\n",)) == expected


def test_an_opening_brace_on_its_own_line() -> None:
    answer = "```csharp\nclass Problem {\n    static long Twice(long n)\n    {\n        return 2 * n;\n    }\n}\n```"
    prompt = "class Problem {\n    // Double it.\n    public static long Twice(long n) {\n"
    assert extract_completion(prompt, answer, "cs", ("\n    }\n",)) == "        return 2 * n;"


@pytest.mark.parametrize(
    ("language", "prompt", "answer", "expected"),
    [
        ("py", PY, "def twice(n): return 2 * n", "    return 2 * n"),
        ("js", JS, "function twice(n) { return 2 * n; }\nfunction other() {\n}", "    return 2 * n;\n}"),
        ("cpp", CPP, "long twice(long n) { return 2 * n; }", "    return 2 * n;"),
    ],
)
def test_a_function_on_one_line(language: str, prompt: str, answer: str, expected: str) -> None:
    assert extract_completion(prompt, answer, language) == expected


def test_a_function_bound_to_a_name() -> None:
    assert (
        extract_completion(JS, "const twice = (n) => {\n  return 2 * n;\n};\n", "js") == "  return 2 * n;\n}"
    )


def test_types_in_the_signature_do_not_hide_the_body() -> None:
    prompt = "function pairs(xs: number[]): {a: number}[] {\n"
    answer = "```ts\nfunction pairs(xs: Array<number>): {a: number}[] {\n  return xs.map(a => ({a}));\n}\n```"
    assert extract_completion(prompt, answer, "ts") == "  return xs.map(a => ({a}));\n}"


def test_a_call_of_the_function_is_not_its_definition() -> None:
    answer = (
        "long twice(long n) {\n    if (n == 0) {\n        return 0;\n    }\n    return 2 + twice(n - 1);\n}"
    )
    expected = "    if (n == 0) {\n        return 0;\n    }\n    return 2 + twice(n - 1);"
    assert extract_completion(CPP, answer, "cpp", ("\n}",)) == expected


def test_the_name_may_be_spelled_another_way_or_be_another() -> None:
    assert (
        extract_completion("function make_two($n) {\n", "function makeTwo($n) {\n  return $n;\n}", "php")
        == "  return $n;\n}"
    )
    assert extract_completion(JS, "function doubled(n) {\n  return 2 * n;\n}", "js") == "  return 2 * n;\n}"


def test_an_answer_with_other_parameters_holds_no_completion() -> None:
    assert extract_completion(JS, "function twice(number) {\n  return 2 * number;\n}", "js") == ""


def test_an_answer_that_needs_a_function_beside_it_holds_no_completion() -> None:
    helper = "function add(a, b) {\n  return a + b;\n}\n"
    assert extract_completion(JS, helper + "function twice(n) {\n  return add(n, n);\n}", "js") == ""
    assert (
        extract_completion(JS, helper + "function twice(n) {\n  return n + n;\n}", "js")
        == "  return n + n;\n}"
    )


def test_code_for_something_else_holds_no_completion() -> None:
    assert extract_completion(JS, "```js\nfunction a(n) {\n}\nfunction b(n) {\n}\n```", "js") == ""
    assert extract_completion(PY, "", "py") == ""


def test_a_docstring_is_not_repeated() -> None:
    answer = 'def twice(n):\n    """Double it.\n\n    Really.\n    """\n    return 2 * n\n'
    assert extract_completion(PY, answer, "py") == "    return 2 * n"


def test_line_ends_of_windows() -> None:
    answer = "```python\r\ndef twice(n):\r\n    m = n\r\n    return 2 * m\r\n```\r\n"
    assert extract_completion(PY, answer, "py") == "    m = n\n    return 2 * m"


def test_the_first_stop_token_cuts() -> None:
    assert extract_completion(PY, "    m = n\n# half way\n    return 2 * m", "py", PY_STOP) == "    m = n"


def test_a_prompt_that_ends_inside_a_line() -> None:
    assert extract_completion(JS.rstrip("\n"), "return 2 * n;\n}", "js") == "\nreturn 2 * n;\n}"
    assert extract_completion(PY + "    ", "    return 2 * n\n", "py") == "return 2 * n"


def test_another_language_keeps_what_there_is_up_to_the_stop_tokens() -> None:
    prompt = "fn twice(n: isize) -> isize {\n"
    assert extract_completion(prompt, "```rust\n    2 * n\n}\n```", "rs", ("\n}",)) == "    2 * n"
