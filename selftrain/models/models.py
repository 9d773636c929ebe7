"""Creates tiny models and tokenizers, loads pretrained ones, and encodes and decodes prompts and completions."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.errors import UsageError
from selftrain.models.context import context_of

if TYPE_CHECKING:
    from selftrain.config import ModelConfig

PAD, END, SEPARATOR = "<pad>", "<end>", "<sep>"
"""Special tokens of the tokenizers that `train_tokenizer` trains."""

LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Endings of the names of transformers' language model classes."""
CLASSIFIER = "ForSequenceClassification"
"""Ending of the names of transformers' sequence classifier classes."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer of `vocabulary` tokens on `texts`; returns a transformers tokenizer.

    A token may span spaces, which keeps sequences short, but not a line break. Each digit is a token, so that numbers can be
    compared. `<sep>` ends a prompt, so that no token spans the end of the prompt and the start of the completion.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        sep_token=SEPARATOR,
        clean_up_tokenization_spaces=False,
    )


def make_tiny(config: "ModelConfig", tokenizer: Any) -> Any:
    """Create a Llama with random weights (seed torch first)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=3 * config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.max_tokens,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def load_tokenizer(folder: str | Path, **options: Any) -> Any:
    """Load the tokenizer in `folder`. If it has no pad token, its end token is used for padding.

    Raises UsageError where the tokenizer cannot be loaded or has no end token.
    """
    from transformers import AutoTokenizer

    with _loading(folder, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    if tokenizer.eos_token_id is None:
        raise UsageError(
            f"{folder}: the tokenizer has no end token (eos_token); completions could never end. Set one in tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_generator(folder: str | Path, **options: Any) -> Any:
    """Load a causal language model from safetensors or GGUF, in float32 by default; never runs code from the checkpoint.

    options  further arguments for `from_pretrained`

    Raises UsageError where `folder` holds no such model.
    """
    from transformers import AutoModelForCausalLM

    names = _config(folder, **options).architectures or []
    if names and not any(name.endswith(LANGUAGE_MODELS) for name in names):
        raise UsageError(
            f"{folder}: expected a causal language model, its config.json names {names}; give a model that writes text"
        )
    return _load(AutoModelForCausalLM, folder, **options)


def make_random(kind: Any, folder: str | Path, **options: Any) -> Any:
    """A model with random weights (seed torch first) in the architecture of the checkpoint in `folder`, float32.

    kind     a class of transformers, such as AutoModelForCausalLM
    options  `revision` and `gguf_file`, and attributes of the config
    """
    import torch

    config = _config(folder, **options)
    config.update({name: value for name, value in options.items() if name not in ("revision", "gguf_file")})
    return kind.from_config(config, dtype=torch.float32)


def load_classifier(
    folder: str | Path,
    fresh_head: bool | None = False,
    random_head: bool = False,
    random: bool = False,
    **options: Any,
) -> Any:
    """Load a one-label sequence classifier that scores a text at its last token, in float32 by default.

    fresh_head  True: create a new score head, for a generator; False: load the head of a classifier; None: create a head
                unless `folder` holds a classifier. A new head is zero, so that all texts have the score 0 at first
    random_head whether a new head is random instead (seed torch first)
    random      whether all weights are new and random, and only the architecture is that in `folder`
    options     further arguments for `from_pretrained`

    Raises UsageError where `folder` holds no such model.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = _config(folder, **options)
    fresh_head = not is_classifier(config) if fresh_head is None else fresh_head
    if not fresh_head:
        if not is_classifier(config):
            raise UsageError(
                f"{folder}: expected a sequence classifier, its config.json names {config.architectures or []}; give a "
                "reranker's folder"
            )
        check_labels(folder, config)
    if random:
        model = make_random(AutoModelForSequenceClassification, folder, num_labels=1, **options)
    else:
        new = frozenset({"score.weight"} if fresh_head else ())
        model = _load(AutoModelForSequenceClassification, folder, new, num_labels=1, **options)
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise UsageError(
            f"{folder}: a {type(model).__name__} has no linear `score` head at the last token; give a decoder, such as a Llama"
        )
    if fresh_head:
        with _gathered(model.score.weight):
            # Stiennon et al. 2020, appendix B: unit variance of scores, for states of root mean square 1 (SmolLM2-135M: 7).
            torch.nn.init.normal_(model.score.weight, std=random_head * (model.score.in_features + 1) ** -0.5)
    return model


def is_classifier(config: Any) -> bool:
    """Whether a transformers config describes a sequence classifier."""
    return any(name.endswith(CLASSIFIER) for name in config.architectures or [])


def check_labels(folder: str | Path, config: Any) -> None:
    """Raise UsageError unless the classifier in `folder` has exactly one label.

    The number of labels is taken from config.json. Where config.json does not give it, transformers assumes 2 labels, so the
    number of rows of the score head's weights is used instead.
    """
    labels = config.num_labels
    path = Path(folder) / "config.json"
    said = json.loads(path.read_bytes()) if path.is_file() else {"num_labels": labels}
    if not {"num_labels", "id2label"} & said.keys():
        labels = next(iter(_rows(Path(folder), "score.weight")), labels)
    if labels != 1:
        raise UsageError(f"{folder}: expected one label (a score), got num_labels={labels}")


def _rows(folder: Path, name: str) -> Iterator[int]:
    """The first dimension of the tensor `name`, from each safetensors file in `folder` that contains this tensor."""
    from selftrain.store.weights import header

    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            if tensor := header(file, path)[1].get(name):
                yield int(tensor["shape"][0])


def final_norm(classifier: Any) -> Any:
    """The norm between a sequence classifier's last layer and its head, found by the usual attribute names; None if not found."""
    from torch import nn

    trunk = classifier.base_model
    for part in (trunk, getattr(trunk, "decoder", None)):
        for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f"):
            found = getattr(part, name, None)
            if isinstance(found, nn.Module):
                return found
    return None


def _config(folder: str | Path, **options: Any) -> Any:
    """A checkpoint's transformers config. Of `options`, only `revision` and `gguf_file` are used."""
    from transformers import AutoConfig

    with _loading(folder, "a model's config"):
        found = {name: options[name] for name in ("revision", "gguf_file") if name in options}
        return AutoConfig.from_pretrained(str(folder), **found)


def _gathered(weight: Any) -> AbstractContextManager[Any]:
    """A context manager inside which `weight` is unsharded; no effect without ZeRO stage 3.

    At its end, rank 0's changes are sent to all ranks.
    """
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(weight, modifier_rank=0)


def _load(kind: Any, folder: str | Path, new: frozenset[str] = frozenset(), **options: Any) -> Any:
    """Load a model of class `kind`. Raises UsageError where `folder` lacks one of its weights, except those named in `new`."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()  # else a new score head, which is intended, prints a table of warnings
    logging.disable_progress_bar()
    options.setdefault("dtype", torch.float32)
    if not options.get("gguf_file"):
        options["use_safetensors"] = True
    with _loading(folder, kind.__name__):
        model, found = kind.from_pretrained(str(folder), output_loading_info=True, **options)
    if missing := sorted(set(found["missing_keys"]) - new):
        raise UsageError(
            f"{folder}: {len(missing)} tensors of a {type(model).__name__} are not there, {missing[0]} for one; "
            "give the folder of a whole model of that kind"
        )
    if options.get("gguf_file"):
        # transformers has dequantised the weights but leaves these attributes set; they would forbid training and be saved.
        model.is_quantized, model.hf_quantizer = False, None
        del model.config.quantization_config
    return model


@contextmanager
def _loading(folder: str | Path, what: str) -> Iterator[None]:
    """Convert the exceptions that missing, truncated or wrong files raise into UsageError; `what`: what is being loaded."""
    try:
        yield
    except Exception as error:  # a file with other content than expected may raise anything in the libraries, such as KeyError
        why = f"{type(error).__name__}: {error}" if isinstance(error, LookupError | AttributeError) else error
        raise UsageError(f"{folder}: cannot be loaded as {what}: {why}") from error


def end_ids(tokenizer: Any, model: Path | Any) -> tuple[int, ...]:
    """Ids of all tokens that end a completion: the tokenizer's end token first, then those of the model's generation config.

    model  the folder of a checkpoint, or a loaded model
    """
    from transformers import GenerationConfig

    if isinstance(model, Path):
        if (model / "generation_config.json").is_file():
            with _loading(model, "a generation config"):
                settings = GenerationConfig.from_pretrained(str(model))
        else:
            settings = _config(model)
    else:
        settings = getattr(model, "generation_config", None) or model.config
    found = getattr(settings, "eos_token_id", None)
    more = [] if found is None else [found] if isinstance(found, int) else list(found)
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *more]))


def load_context(folder: Path) -> int | None:
    """The longest input of the checkpoint in `folder`, see `context_of`."""
    return context_of(_config(folder))


def fill_template(template: str, prompt: str) -> str:
    """The text that a reranker reads before the completion: `template` with its first `{prompt}` filled in; other braces stay."""
    return template.replace("{prompt}", prompt, 1)


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt, without an end token; the separator follows if the tokenizer has one."""
    ids = tokenizer(prompt)["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return [*ids, tokenizer.sep_token_id] if tokenizer.sep_token_id is not None else ids


def encode_completions(tokenizer: Any, completions: Sequence[str]) -> list[list[int]]:
    """Token ids of completions, each with the end token. One call for many completions is faster than one call for each.

    A completion continues a prompt, so it is encoded without the space that SentencePiece tokenizers add before a text.
    """
    if not completions:
        return []

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"])

    rows = encode(completions)
    if before := _context(tokenizer):
        text, ids = before
        for at, joined in enumerate(encode([text + completion for completion in completions])):
            if joined[: len(ids)] == ids:
                rows[at] = joined[len(ids) :]
    return [[*row, tokenizer.eos_token_id] for row in rows]


def encode_completion(tokenizer: Any, completion: str) -> list[int]:
    """Token ids of one completion with the end token; see `encode_completions`."""
    return encode_completions(tokenizer, [completion])[0]


def decode_completion(tokenizer: Any, ids: Sequence[int], ends: Sequence[int] = ()) -> str:
    """The text of a completion's tokens up to the first token of `ends`, without special tokens.

    The tokens are decoded after a fixed prefix, which is then removed from the text: some tokenizers drop the first space of a
    text, which would break the completion's indentation.
    """
    ids = list(ids)
    ids = ids[: min((ids.index(end) for end in ends if end in ids), default=len(ids))]
    before = _context(tokenizer)
    head = before[1] if before else []
    text, joined = _decode(tokenizer, head), _decode(tokenizer, [*head, *ids])
    return joined[len(text) :] if joined.startswith(text) else _decode(tokenizer, ids)


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    # No clean-up: it is meant for prose, and removes spaces before commas and full stops.
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


CONTEXT_PROBES = ("    x = 1\n", "x\n", "\n    x")
"""Texts that show whether a tokenizer treats the start of a text specially."""


def _context(tokenizer: Any) -> tuple[str, list[int]] | None:
    """A prefix (text, token ids) to put before a completion when it is encoded or decoded; cached on the tokenizer.

    None where no prefix is needed, or none works: see `_find_context`.
    """
    if not hasattr(tokenizer, "_selftrain_context"):
        tokenizer._selftrain_context = _find_context(tokenizer)
    found: tuple[str, list[int]] | None = tokenizer._selftrain_context
    return found


def _find_context(tokenizer: Any) -> tuple[str, list[int]] | None:
    """The first usable prefix; None if CONTEXT_PROBES need no prefix to be encoded and decoded right, or no prefix is usable."""

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    alone = [encode(text) for text in CONTEXT_PROBES]
    for text in ("\n", ":", "x"):
        ids = encode(text)
        with_context = [encode(text + probe) for probe in CONTEXT_PROBES]
        if not ids or any(joined[: len(ids)] != ids for joined in with_context):
            continue
        behind = [joined[len(ids) :] for joined in with_context]
        if behind == alone and all(
            _decode(tokenizer, found) == probe for found, probe in zip(behind, CONTEXT_PROBES, strict=True)
        ):
            return None
        return text, ids
    return None


def pad(rows: Sequence[Sequence[int]], value: int, left: bool = False) -> Any:
    """[len(rows), longest] int64 tensor of token ids, padded with `value` on the right, or on the left where `left` is set."""
    import torch

    width = max(map(len, rows))
    fill = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*f, *row] if left else [*row, *f] for row, f in zip(rows, fill, strict=True)])
