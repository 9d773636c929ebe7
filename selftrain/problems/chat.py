"""The messages of the prompt style `chat`: the question that shows a problem, the answer to learn from, and how an answer is read.

A chat model's answer is prose and code blocks. `completion_of` reads it by the sandbox's rule (`sandbox.completion`). The result
continues the problem's prompt, as a completion in the other style does. If the answer's program needs more than that (imports,
definitions, another head of the function), the result is the whole program in one code block, and so `source_of` reads it.
"""

from sandbox.completion import Unreadable, extract_program, whole_program
from sandbox.languages import LANGUAGES
from selftrain.records import Problem, PromptStyle

FENCE = "```"
FRAME = "Write the program that the given code begins. Answer with one code block."
"""What the user says in the conversation in which a reranker reads a program; the program itself is in the answer."""


def question(prompt: str, language: str) -> str:
    """The message that asks for a completion of `prompt`."""
    title = LANGUAGES[language].title if language in LANGUAGES else language
    return (
        f"Complete this {title} code. Answer with one code block that contains the whole program, including the code below, "
        f"without tests and examples.\n\n{_block(prompt.rstrip(), language)}"
    )


def answer(prompt: str, completion: str, language: str) -> str:
    """The answer to `question` that SFT learns: one code block with `prompt` and `completion`. `completion_of` reads it.

    A completion that is a whole program in a code block is the answer itself.
    """
    if is_whole(completion):
        return completion
    return _block(whole_program(prompt, completion, language), language)


def completion_of(problem: Problem, text: str, style: PromptStyle) -> str:
    """The completion in `text`, which the generator wrote for `problem`.

    In style `completion` it is the text before the first stop token; in style `chat`, what the sandbox's rule finds in the
    answer, and stop tokens do not count. An answer without a program stays unchanged, and is judged as the program that it is not.
    """
    if style == "completion":
        return problem.cut(text)
    try:
        found = extract_program(problem.prompt, text, problem.language, problem.tests)
    except Unreadable:
        return text
    if found.prompt != problem.prompt:
        return _block(found.prompt + found.completion, problem.language)
    return found.completion


def source_of(prompt: str, completion: str, style: PromptStyle) -> tuple[str, str]:
    """(prompt, completion) whose concatenation is the program of `completion`; the prompt is empty for a whole program."""
    if style == "chat" and is_whole(completion):
        return "", completion[completion.index("\n") + 1 : -len(FENCE) - 1]
    return prompt, completion


def is_whole(completion: str) -> bool:
    """Whether a completion is a whole program in a code block, as `completion_of` makes it."""
    return completion.startswith(FENCE) and completion.endswith(f"\n{FENCE}") and completion.count("\n") > 1


def _block(code: str, language: str) -> str:
    title = LANGUAGES[language].title.lower() if language in LANGUAGES else language
    return f"{FENCE}{title if title.isalnum() else language}\n{code}\n{FENCE}"
