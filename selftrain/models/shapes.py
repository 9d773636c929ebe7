"""Computes a model's exact parameter counts, and the sizes that determine its memory and FLOPs.

Models are built on torch's meta device, where tensors have a shape but no data, so even a model of 33B parameters takes no
memory.
"""

import copy
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from selftrain.config import ModelConfig
from selftrain.configfile import CONFIGS
from selftrain.errors import UsageError
from selftrain.models.layers import shorten
from selftrain.store.weights import header


@dataclass(frozen=True)
class Shape:
    """A causal language model's sizes.

    parameters    number of the model's parameters; tied weights are counted once
    classifier    number of parameters of a one-label classifier (a reranker) with the same trunk
    trunk_linear  number of weights of the linear layers in the trunk; each is used once per token
    features      inputs + outputs of these linear layers, summed: the number of parameters of adapters of rank 1
    largest       number of parameters of the largest single module, which ZeRO-3 gathers at once
    head          number of weights of the output layer (`vocabulary` x `hidden`), tied or not
    hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary
                  as in the model's config
    context       longest input, tokens
    """

    parameters: int
    classifier: int
    trunk_linear: int
    features: int
    largest: int
    head: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int

    @property
    def kv_elements(self) -> int:
        """Numbers per token in the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def adapters(self, rank: int) -> int:
        """Number of parameters of adapters of rank `rank` on all linear layers of the trunk."""
        return rank * self.features


def shape_of(model: ModelConfig, vocabulary: int | None = None, layers: int | None = None) -> Shape:
    """The shape of the model that `model` describes, or of its first `layers` layers.

    vocabulary  overrides a tiny model's vocabulary size

    Raises UsageError where the model's config cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM

    settings = _tiny(model, vocabulary) if model.base is None else read_config(model)
    if layers is not None:
        settings = copy.deepcopy(settings)
        text = settings.get_text_config()
        shorten(text, min(layers, text.num_hidden_layers))
    with _understandable(model, "is not the config of a causal language model"), torch.device("meta"):
        return measure(AutoModelForCausalLM.from_config(settings, dtype=torch.float32))


def measure(built: Any) -> Shape:
    """The shape of `built`, a causal language model of transformers."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config, trunk = built.config.get_text_config(), built.base_model
    linear = [m.weight for m in trunk.modules() if isinstance(m, nn.Linear | Conv1D)]
    own = [sum(p.numel() for p in m.parameters(recurse=False)) for m in built.modules()]
    heads = config.num_attention_heads
    parameters = sum(p.numel() for p in built.parameters())
    head = built.get_output_embeddings().weight
    tied = head is built.get_input_embeddings().weight
    return Shape(
        parameters=parameters,
        classifier=parameters - (0 if tied else head.numel()) + config.hidden_size,
        trunk_linear=sum(weight.numel() for weight in linear),
        features=sum(sum(weight.shape) for weight in linear),
        largest=max(own),
        head=head.numel(),
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        context=config.max_position_embeddings,
    )


@lru_cache(maxsize=4)  # reading a GGUF file's header takes seconds: it holds the vocabulary
def read_config(model: ModelConfig) -> Any:
    """The transformers config of the pretrained model `model.base`.

    Read from the first of these that exists: the folder `model.base` (or the header of its GGUF file), a file in
    `configs/models` (for the models that the shipped configs use), the hub or its cache.

    Raises UsageError where the config cannot be read.
    """
    from transformers import AutoConfig

    assert model.base is not None
    folder = Path(model.base)
    if folder.is_dir():
        if model.gguf_file and not (folder / model.gguf_file).is_file():
            raise UsageError(f"model.gguf_file: {model.gguf_file} is not in {folder}")
        if not model.gguf_file and not (folder / "config.json").is_file():
            raise UsageError(
                f"model.base: {folder} has no config.json; expected a folder in the Hugging Face layout, or set "
                "model.gguf_file"
            )
        with _understandable(model, "cannot be read"):
            return AutoConfig.from_pretrained(str(folder), **model.options)
    shipped = CONFIGS / "models" / f"{model.base.replace('/', '--')}.json"
    try:
        if shipped.is_file():
            return AutoConfig.from_pretrained(str(shipped))
        return AutoConfig.from_pretrained(model.base, revision=model.revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"model.base: {model.base!r} is no folder here, and its config is neither in the hub's cache nor does the hub "
            f"answer ({reason}). A plan needs no weights: on a machine that reaches the hub run `hf download {model.base} "
            "config.json tokenizer.json tokenizer_config.json --local-dir FOLDER`, bring FOLDER here and add `--set "
            "model.base=FOLDER`"
        ) from error


def stored_parameters(folder: Path, layers: int | None = None) -> int | None:
    """Number of parameters in a checkpoint's safetensors files, from the files' headers; does not read weights or import torch.

    layers  count those of the first `layers` layers and what is in no layer; None: count all

    None where the folder has no tensors in safetensors files. Raises UsageError for a truncated file.
    """
    counts = []
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            _, tensors = header(file, path)
        for name, tensor in tensors.items():
            layer = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
            if name != "__metadata__" and not (layer and layers is not None and int(layer[1]) >= layers):
                counts.append(math.prod(tensor["shape"]))
    return sum(counts) if counts else None


def _tiny(model: ModelConfig, vocabulary: int | None) -> Any:
    """The transformers config of the tiny Llama that `models.make_tiny` creates."""
    import torch

    from selftrain.models.models import make_tiny

    class Tokenizer:
        """The part of a tokenizer that `make_tiny` uses."""

        eos_token_id, pad_token_id = 1, 0

        def __len__(self) -> int:
            return vocabulary or model.vocabulary

    with torch.device("meta"):
        return make_tiny(model, Tokenizer()).config


@contextmanager
def _understandable(model: ModelConfig, what: str) -> Iterator[None]:
    """Convert the exceptions that transformers raises for an unsupported or broken config into UsageError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"model.base: {model.base} {what}: {str(error).strip()[:300]}") from error
