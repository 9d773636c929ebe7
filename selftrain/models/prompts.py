"""Token ids of problems and answers in both prompt styles; every stage that reads or writes them calls these functions.

completion  the model reads the prompt and continues it
chat        the model reads a conversation in the tokenizer's own chat template: one message of the user, which shows the prompt
            (`selftrain.problems.chat.question`), and the header of the assistant's turn. It writes an answer in markdown.

The style is an entry `prompt_style` of tokenizer_config.json, so that it goes with every model that is trained from the SFT policy.
In style `chat` the tokenizer's end token is the one that ends a turn, so that an answer ends as a completion does.
"""

from collections.abc import Sequence
from typing import Any

from selftrain.errors import UsageError
from selftrain.models.models import encode_completions, encode_prompt
from selftrain.problems.chat import FENCE, FRAME, answer, question
from selftrain.records import PromptStyle

_STYLE = "prompt_style"


def style_of(tokenizer: Any) -> PromptStyle:
    """The prompt style of the model that `tokenizer` belongs to."""
    return "chat" if tokenizer.init_kwargs.get(_STYLE) == "chat" else "completion"


def set_style(tokenizer: Any, style: PromptStyle) -> None:
    """Make `style` the tokenizer's prompt style, which it keeps where it is saved."""
    tokenizer.init_kwargs.pop(_STYLE, None)
    if style == "chat":
        tokenizer.init_kwargs[_STYLE] = style
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(turn_end(tokenizer))


def copy_style(tokenizer: Any, to: Any) -> None:
    """Give the tokenizer `to` the prompt style of `tokenizer`; it keeps its own end token."""
    if style_of(tokenizer) == "chat":
        to.init_kwargs[_STYLE] = "chat"


def encode_problem(tokenizer: Any, prompt: str, language: str) -> list[int]:
    """Token ids that the generator reads before it writes a completion of `prompt`."""
    if style_of(tokenizer) == "completion":
        return encode_prompt(tokenizer, prompt)
    text = _rendered(tokenizer, question(prompt, language))
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_answers(tokenizer: Any, prompt: str, completions: Sequence[str], language: str) -> list[list[int]]:
    """Token ids of what the generator writes for each of `completions`, with the end token: in style `chat` the answer that
    has it in a code block."""
    if style_of(tokenizer) == "chat":
        completions = [answer(prompt, text, language) for text in completions]
    return encode_completions(tokenizer, completions)


def reranker_template(tokenizer: Any, template: str) -> str:
    """The text with `{prompt}` that a reranker reads before a completion: `template`, unless that is `{prompt}` alone and the
    reranker starts from a model with style `chat`.

    Then it reads a conversation whose answer begins with the prompt: prompt and completion follow each other in every style.
    """
    if template != "{prompt}" or style_of(tokenizer) == "completion":
        return template
    text = _rendered(tokenizer, FRAME)
    begin = tokenizer.bos_token or ""
    if begin and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
        text = text.removeprefix(begin)  # the tokenizer adds it
    return f"{text}{FENCE}\n{template}"


def turn_end(tokenizer: Any) -> int:
    """Id of the special token with which the chat template ends an answer; the end token where it has none."""
    content = "answer"
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": content}]
    after = tokenizer.apply_chat_template(messages, tokenize=False).rpartition(content)[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder
    return next((id for id in ids if id in added and added[id].special), tokenizer.eos_token_id)


def check_chat(tokenizer: Any, base: str) -> None:
    """Raise UsageError unless the tokenizer of `base` has a chat template that shows the user's message."""
    asked = "expected an instruct model's; set model.prompt_style=completion, or take another model"
    if not tokenizer.chat_template:
        raise UsageError(
            f"model.prompt_style is chat, and the tokenizer of {base} has no chat template: {asked}"
        )
    try:
        text = _rendered(tokenizer, question("x = 1", "py"))
        turn_end(tokenizer)
    except Exception as error:  # a template is a program of the checkpoint's and raises what it likes
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"model.prompt_style is chat, and the chat template of {base} fails ({reason}): {asked}"
        ) from error
    if "x = 1" not in text:
        raise UsageError(
            f"model.prompt_style is chat, and the chat template of {base} leaves out the user's message: {asked}"
        )


def _rendered(tokenizer: Any, message: str) -> str:
    """The conversation with the user's `message`, up to the header of the assistant's turn."""
    messages = [{"role": "user", "content": message}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
