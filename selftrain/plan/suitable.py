"""Checks before training whether a run's pretrained models will work in all stages.

The models' configs and tokenizers are compared with the settings. Then a miniature of the generator and of the reranker ("twin"
in the code) is tried out: a model of the same architecture with two layers and random weights. So no list of supported
architectures is needed. Not covered: architectures of which no miniature can be created, damaged weights, and faults that
only a model of full size shows, such as a lack of memory (see `selftrain plan`).

Run as a child process: `python -m selftrain.plan.suitable resolved.json`.
"""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.config import ModelConfig, RunConfig, SampleConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import Child, child_main
from selftrain.rerank.reward_model import check_reward_model
from selftrain.stage import Outcome

TOO_FAR = 0.05
"""Nats by which the log-probabilities of a completion in two engines may differ."""
TEXT = "def add(values):\n    total = 0\n    for value in values:\n        total += value\n    return total\n"


def check(config: RunConfig) -> None:
    """Raise UsageError where a stage of the run would fail because of the config's models."""
    from selftrain.models.context import context_of
    from selftrain.models.prompts import check_chat

    generator: Any = None
    if config.model.base is None:
        context: int | None = config.model.max_tokens
    else:
        generator, tokenizer = _read(config.model)
        context = context_of(generator)
        check_vocabulary("model.base", config.model.base, generator, tokenizer)
        if config.model.prompt_style == "chat":
            check_chat(tokenizer, config.model.base)
        _try_generator(config, generator, tokenizer)
    check_lengths(config, context, ("sft.max_tokens", "sample.max_new_tokens"))
    if config.reward.base is not None:
        judge, tokenizer = _read(config.reward.model, "reward.base")
        check_vocabulary("reward.base", config.reward.base, judge, tokenizer)
        check_lengths(config, context_of(judge), ("reward.max_tokens", "sample.max_new_tokens"))
        _try_reranker(config, judge, config.reward.base, "reward.base")
    else:
        check_lengths(config, context, ("reward.max_tokens",))
        if generator is not None:
            _try_reranker(config, generator, str(config.model.base), "model.base")
    for name, place in config.evaluate.reward_models.items():
        check_reward_model(name, place)


def check_architectures(config: RunConfig) -> None:
    """Call `check`, unless a tokenizer is not available; a plan does not need it. Raises UsageError as `check` does."""
    try:
        for model in (config.model, config.reward.model):
            if model.base is not None:
                _read(model)
    except UsageError:
        return  # the plan says that the tokenizer is missing
    check(config)


def check_vocabulary(field: str, base: str, config: Any, tokenizer: Any) -> None:
    """Raise UsageError where the tokenizer or the config has token ids for which the model's embedding has no row."""
    text = config.get_text_config()
    rows, largest = text.vocab_size, max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise UsageError(
            f"{field}: {base}: the tokenizer has {largest + 1} tokens ({tokenizer.convert_ids_to_tokens(largest)!r} is the "
            f"last), and the model's embedding {rows} rows; expected no more tokens than rows. Remove the added tokens from "
            "the tokenizer, or give the model rows for them (transformers: model.resize_token_embeddings(len(tokenizer)))"
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        found = getattr(text, name, None)
        for id in found if isinstance(found, list) else [found]:
            if id is not None and id >= rows:
                raise UsageError(
                    f"{field}: {base}: its config.json has {name} {id}, and the model's embedding {rows} rows; expected a "
                    "smaller number: correct it"
                )


def check_lengths(config: RunConfig, context: int | None, settings: tuple[str, ...]) -> None:
    """Raise UsageError where one of `settings` exceeds `context`, the tokens of the model's longest input; None: unlimited."""
    for name in settings:
        part, field = name.split(".")
        asked = getattr(getattr(config, part), field)
        # A prompt has at least one token.
        if context is not None and asked > context - (name == "sample.max_new_tokens"):
            raise UsageError(
                f"{name} is {asked}, and the longest input of the model is {context} tokens"
                f"{' (model.max_tokens)' if config.model.base is None and part != 'reward' else ''}; lower {name}, or take a "
                "model with a longer input"
            )


def _read(model: ModelConfig, field: str = "model.base") -> tuple[Any, Any]:
    """Config and tokenizer of a pretrained model."""
    from selftrain.models.models import load_tokenizer
    from selftrain.models.shapes import read_config

    assert model.base is not None
    try:
        return read_config(model), load_tokenizer(model.base, **model.options)
    except UsageError as error:
        raise UsageError(str(error).replace("model.base", field, 1)) from error


def twin(config: Any, tokenizer: Any, padded: bool = False) -> Any:
    """The config of a miniature: as `config`, with two layers and two heads. `padded`: with more embedding rows than tokens."""
    small = copy.deepcopy(config.get_text_config())
    heads, wide = small.num_attention_heads, small.hidden_size
    keys = getattr(small, "num_key_value_heads", None)
    layers = small.num_hidden_layers
    for name, value in list(vars(small).items()):
        if isinstance(value, list) and len(value) == layers:  # one item per layer
            setattr(small, name, value[:2])
        elif name in ("intermediate_size", "ffn_dim", "n_inner") and value:
            setattr(small, name, 64)
        elif name == "word_embed_proj_dim" and value == wide:
            setattr(small, name, 2 * wide // heads)
    small.num_hidden_layers, small.num_attention_heads = 2, 2
    small.hidden_size = 2 * wide // heads
    if keys:
        small.num_key_value_heads = 2 if keys == heads else 1
    small.vocab_size = -(-(len(tokenizer) + 1) // 64) * 64 if padded else len(tokenizer)
    small.eos_token_id, small.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    small.bos_token_id = small.torch_dtype = small.dtype = None
    return small


def _twin(config: Any, padded: bool) -> tuple[Any, Any] | None:
    """A miniature of a model with the config `config`, and its tokenizer; None where no miniature can be created."""
    import torch
    from transformers import AutoModelForCausalLM

    from selftrain.models.models import train_tokenizer

    tokenizer = train_tokenizer([TEXT] * 20, 300)
    torch.manual_seed(0)
    try:
        model = AutoModelForCausalLM.from_config(twin(config, tokenizer, padded), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:  # larger weights, so that its distributions are not almost uniform
                    parameter.mul_(8)
            model.eval()(input_ids=torch.tensor([[5, 6, 7]]))
    except Exception:  # architectures that cannot be so small raise various exceptions
        return None
    return model, tokenizer


def _try_generator(config: RunConfig, settings: Any, tokenizer: Any) -> None:
    """Raise UsageError where PPO or the sampling engines cannot use the generator's architecture."""
    from selftrain.models.models import encode_prompt
    from selftrain.sampling import hf
    from selftrain.training.ppo.model import check_head

    padded = settings.get_text_config().vocab_size > len(tokenizer)
    if (made := _twin(settings, padded)) is None:
        return
    model, own = made
    check_head(model, encode_prompt(own, TEXT))
    engines = {"sample.engine": config.sample.engine, "ppo.engine": config.ppo.engine}
    asked = [name for name, engine in engines.items() if engine == "ctranslate2"]
    if not asked:
        return
    with tempfile.TemporaryDirectory(prefix="selftrain-twin-") as scratch:
        folder = Path(scratch)
        model.save_pretrained(folder)
        own.save_pretrained(folder)
        drawing = SampleConfig(max_new_tokens=12, temperature=1.0)
        prompts = [encode_prompt(own, TEXT), encode_prompt(own, TEXT[:20])]
        theirs = hf.Engine(folder, drawing).sample(prompts, 1, 1)
        rows = [many[0] for many in theirs]
        for reason in _ctranslate2(folder, drawing, prompts, rows):
            raise UsageError(
                f"{' and '.join(asked)}: ctranslate2 cannot sample from a {type(model).__name__} ({config.model.base}): "
                f"{reason}; set {' and '.join(f'{name}=hf' for name in asked)}"
            )


def _ctranslate2(folder: Path, drawing: Any, prompts: Any, rows: Any) -> Iterator[str]:
    """The reason why ctranslate2 cannot sample from the model in `folder`, if any. `rows`: samples drawn by transformers."""
    from selftrain.sampling import ct2

    workspace = folder / "converted"
    workspace.mkdir()
    try:
        engine = ct2.Engine(folder, drawing, workspace, 1)
        found = engine.logprobs(prompts, [row.token_ids for row in rows])
    except Exception as error:  # its converter raises exceptions of many types
        yield str(error).strip().splitlines()[0].partition(" (supported")[0][:200]
        return
    far = max(abs(one - row.logprob) for one, row in zip(found, rows, strict=True))
    if far > TOO_FAR:
        yield f"it computes other log-probabilities than transformers, {far:.2g} nats away"


def _try_reranker(config: RunConfig, settings: Any, base: str, field: str) -> None:
    """Raise UsageError where the model `base`, named by the setting `field`, cannot become a reranker."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from selftrain.models.layers import check_layers, check_packed, keep_layers, tied_head
    from selftrain.models.models import check_labels, final_norm, is_classifier, train_tokenizer

    if field == "reward.base" and Path(base).is_dir() and is_classifier(settings):
        check_labels(base, settings)
    try:
        small = twin(settings, train_tokenizer([TEXT] * 20, 300))
    except Exception:
        return
    small.num_labels = 1
    try:
        model = AutoModelForSequenceClassification.from_config(small, dtype=torch.float32)
    except ValueError as error:
        raise UsageError(
            f"{field}: {base}: there is no reranker of a {settings.model_type} model: transformers has no sequence classifier of "
            "it; set reward.base to a model of another kind (Llama, Qwen2, Mistral, GPT-2, GPT-NeoX, ...)"
        ) from error
    except Exception:
        return
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise UsageError(
            f"{field}: {base}: a {type(model).__name__} has no linear `score` head at the last token; set reward.base to a "
            "decoder, such as a Llama"
        )
    check_layers(config.reward.layers, settings.get_text_config().num_hidden_layers)
    if config.reward.layers is not None:
        keep_layers(model, min(config.reward.layers, small.num_hidden_layers))
    if config.reward.token_loss and final_norm(model) is None:
        raise UsageError(
            f"reward.token_loss needs a model with a final norm before its head, and a {type(model).__name__} ({base}) has "
            "none that is known; set reward.token_loss=0"
        )
    if config.reward.lm_loss:
        tied_head(model)
    if config.reward.packed:
        check_packed(model)


def run(child: Child) -> Outcome:
    """The work of the child process: `check`."""
    check(RunConfig.model_validate(child.config["run"]))
    return Outcome("")


if __name__ == "__main__":
    child_main(run)
