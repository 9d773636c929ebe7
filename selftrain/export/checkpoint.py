"""Writes a reranker as a checkpoint from which other tools compute our scores.

What they need is in the folder's own files:

config.json     `problem_type: regression`, so that no sigmoid is put on the score; `use_sep_token`, so that vLLM reads a pair
chat template   of [user: prompt, assistant: completion] it makes the text whose token ids `Reranker.encode` gives, without the
                blanks at the completion's end that the normal form (`selftrain.rerank.normal`) leaves out
tokenizer.json  `tokenizer(prompt, completion)`, a pair of texts, gives these token ids

A completion is encoded apart from its prompt. A separator token between them does that in one text too. If the tokenizer has
none, the template writes the character `MARK` there, at which the tokenizer splits the text, and which it then drops.

The score is read at the last token that is not the padding token. If the end token is the padding token, this is the token
before the end token, which is therefore not written: then tools that read the score at the very last token agree as well.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.models.models import encode_completions, encode_prompt, fill_template, load_tokenizer
from selftrain.models.prompts import copy_style

MARK = "\ue0f5"
"""A character of Unicode's private use area, which code does not contain."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PROMPTS = ("def f(xs):\n", 'def f(xs):\n    """ Adds. """\n    ', "f() {", "x", "é = [1, 22]\n\n")
COMPLETIONS = ("    return sum(xs)\n", "\n    return 1", "x = 1\n\n\n", "", " ", "\ty, z\n}", "é\n")
"""Texts for which `Exact` is found out: beginnings and ends at which tokenizers merge or add blanks."""
ONE_PAIR = "expected one message of the user, the prompt, and one of the assistant, the completion"


@dataclass(frozen=True)
class Exact:
    """Which ways of reading a folder give the reranker's own token ids, for all of PROMPTS and COMPLETIONS.

    template  the chat template's text
    pair      a pair of texts, the second of which is not empty
    """

    template: bool
    pair: bool


def write_checkpoint(reranker: Path, folder: Path) -> Exact:
    """Write the drop-in checkpoint of the reranker in `reranker` into `folder`; the weights are copied as they are.

    Raises UsageError where the tokenizer is none of the library `tokenizers`.
    """
    config = json.loads((reranker / "config.json").read_text())
    tokenizer = load_tokenizer(reranker)
    template = config.get("prompt_template") or "{prompt}"
    found, exact = drop_in_tokenizer(tokenizer, template, config.get("max_position_embeddings"))
    found.save_pretrained(folder)
    _rewrite(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast"},
        {"is_local", "local_files_only", "name_or_path", "backend"},
    )
    _rewrite(
        reranker / "config.json",
        {
            "problem_type": "regression",
            "num_labels": 1,
            "use_sep_token": True,
            "prompt_template": template,
            "pad_token_id": tokenizer.pad_token_id,
        },
        {"_name_or_path"},
        folder / "config.json",
    )
    for path in sorted(path for kind in WEIGHTS for path in reranker.glob(kind)):
        shutil.copyfile(path, folder / path.name)
    return exact


def _rewrite(path: Path, more: dict[str, Any], less: set[str], to: Path | None = None) -> None:
    """Write the JSON object in `path`, with `more` and without the keys `less`, to `to` (None: the same file)."""
    kept = {name: value for name, value in json.loads(path.read_text()).items() if name not in less}
    (to or path).write_text(json.dumps(kept | more, indent=2, sort_keys=True) + "\n")


def drop_in_tokenizer(tokenizer: Any, template: str, context: int | None) -> tuple[Any, Exact]:
    """A tokenizer whose chat template and pairs give the token ids of a reranker with this tokenizer and prompt template.

    context  the model's longest input, tokens; where texts are truncated to it, the prompt loses its beginning
    """
    from transformers import PreTrainedTokenizerFast

    def expected(texts: Sequence[str]) -> list[list[list[int]]]:
        heads = [encode_prompt(tokenizer, fill_template(template, prompt)) for prompt in PROMPTS]
        return [[head + row for row in _completions(tokenizer, texts)] for head in heads]

    rows, stripped = expected(COMPLETIONS), expected([text.rstrip() for text in COMPLETIONS])
    found = PreTrainedTokenizerFast(
        tokenizer_object=_backend(tokenizer, template),
        **{name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
        truncation_side="left",
        **({"model_max_length": context} if context else {}),
    )
    copy_style(tokenizer, found)
    before, _ = _added(tokenizer)
    start = "".join(tokenizer.convert_ids_to_tokens(before))
    end = "" if tokenizer.pad_token_id == tokenizer.eos_token_id else tokenizer.eos_token
    # SentencePiece's blank before a text is missing behind a start token: the first way writes it, if that gives the same ids.
    for blank in (" ", ""):
        found.chat_template = _chat_template(start + blank, template, tokenizer.sep_token or MARK, end)
        exact = stripped == [_rendered(found, prompt) for prompt in PROMPTS]
        if exact:
            break
    # An empty second text is for transformers none at all.
    pair = all(
        list(found(prompt, text)["input_ids"]) == ids
        for prompt, of_prompt in zip(PROMPTS, rows, strict=True)
        for text, ids in zip(COMPLETIONS, of_prompt, strict=True)
        if text
    )
    return found, Exact(template=exact, pair=pair)


def _completions(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of completions up to the token at which the score is read."""
    rows = encode_completions(tokenizer, texts)
    return [row[:-1] for row in rows] if tokenizer.pad_token_id == tokenizer.eos_token_id else rows


def _rendered(tokenizer: Any, prompt: str) -> list[list[int]]:
    """The token ids of the chat template's texts, for `prompt` with each of COMPLETIONS."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}], tokenize=False
        )
        for text in COMPLETIONS
    ]
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _backend(tokenizer: Any, template: str) -> Any:
    """A copy of the tokenizer of the library `tokenizers`, which splits at MARK and encodes pairs as the reranker does."""
    from tokenizers import Tokenizer, pre_tokenizers, processors

    own = getattr(tokenizer, "backend_tokenizer", None)
    if own is None:
        raise UsageError(
            f"a {type(tokenizer).__name__} has no tokenizer.json; expected a tokenizer of the library `tokenizers`"
        )
    backend = Tokenizer.from_str(own.to_str())
    backend.no_truncation()
    backend.no_padding()
    if tokenizer.sep_token is None:
        split = pre_tokenizers.Split(MARK, "removed")
        rest = [backend.pre_tokenizer] if backend.pre_tokenizer else []
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, *rest])
    before, after = _added(tokenizer)
    head, _, tail = template.partition("{prompt}")

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    separator = [] if tokenizer.sep_token is None else [tokenizer.sep_token_id]
    end = [] if tokenizer.pad_token_id == tokenizer.eos_token_id else [tokenizer.eos_token_id]
    groups = {
        "START": before,
        "LAST": after,
        "HEAD": [*before, *ids(head)],
        "BETWEEN": [*ids(tail), *separator],
        "END": end,
    }

    def pieces(*names: str) -> list[str]:
        return [name for name in names if groups.get(name, True)]

    backend.post_processor = processors.TemplateProcessing(
        single=pieces("START", "$A", "LAST"),
        pair=pieces("HEAD", "$A", "BETWEEN", "$B", "END"),
        special_tokens=[
            {"id": name, "ids": found, "tokens": tokenizer.convert_ids_to_tokens(found)}
            for name, found in groups.items()
            if found
        ],
    )
    return backend


def _added(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text, such as its `bos_token`."""
    plain = list(tokenizer("x", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("x")["input_ids"])
    more = len(whole) - len(plain)
    at = next((at for at in range(more + 1) if whole[at : at + len(plain)] == plain), 0)
    return whole[:at], whole[at + len(plain) :]


def _chat_template(start: str, template: str, between: str, end: str) -> str:
    """A Jinja template of a prompt (role `user`, or vLLM's `query`) and a completion (`assistant`, or `document`).

    Messages of the role `system` are left out, since the reranker reads none; other conversations raise.
    """
    head, _, tail = template.partition("{prompt}")
    return (
        "{%- set pair = messages | rejectattr('role', 'equalto', 'system') | list -%}"
        "{%- if pair | length not in [1, 2] or pair[0].role not in ['user', 'query'] "
        "or (pair | length == 2 and pair[1].role not in ['assistant', 'document']) -%}"
        f"{{{{- raise_exception({_literal(ONE_PAIR)}) -}}}}"
        "{%- endif -%}"
        f"{{{{- {_literal(start + head)} + pair[0].content + {_literal(tail + between)} -}}}}"
        f"{{%- if pair | length == 2 -%}}{{{{- pair[1].content.rstrip() + {_literal(end)} -}}}}{{%- endif -%}}"
    )


def _literal(text: str) -> str:
    """`text` as a string of Jinja, in ASCII."""
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'
