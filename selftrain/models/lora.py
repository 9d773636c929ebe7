"""Low-rank adapters (LoRA): adds them to a model for training, and merges them into the base weights for export.

Functions import peft themselves, since the import takes a second.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from selftrain.config import LoraConfig
from selftrain.errors import UsageError

ROOT = "base_model.model."
"""Prefix of the parameter names of a PeftModel."""


def add(model: Any, settings: LoraConfig, head: bool = False) -> Any:
    """A PeftModel: `model` with adapters on all linear layers of its trunk, and all other weights frozen.

    Of each adapter's two matrices one starts at random, by torch's generator (seed it first), and the other at zero. So the
    adapters change nothing before training.

    head  whether to train `model.score`, a sequence classifier's new head, with all its weights

    Raises UsageError where the trunk has no linear layers.
    """
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    trunk = model.base_model
    names = [name for name, module in trunk.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if not names:
        raise UsageError(
            f"lora: {type(trunk).__name__} has no linear layers to adapt; train all weights: lora: null"
        )
    prefix = f"{model.base_model_prefix}." if trunk is not model else ""
    config = PeftConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft accepts a float too
        lora_dropout=settings.dropout,
        target_modules=[prefix + name for name in names],
        modules_to_save=["score"] if head else None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in trunk.modules()),
    )
    return get_peft_model(model, config)


def merged(base: Any, settings: LoraConfig, weights: Mapping[str, Tensor]) -> Any:
    """An ordinary transformers model: `base`, as loaded from its checkpoint, with trained adapters merged into its weights.

    weights  unsharded tensors by name; must contain all trained parameters. The names are those in a PeftModel, with or without
             the prefix of a wrapper (DDP, DeepSpeed).
    """
    trained = {name[name.index(ROOT) :]: tensor for name, tensor in weights.items() if ROOT in name}
    model = add(base, settings)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(trained[name])
    return model.merge_and_unload()


def from_folder(load: Callable[[], Any], adapters: Path) -> Any:
    """An ordinary transformers model: the base that `load` returns, merged with the adapters in the folder `adapters`.

    Only one process may call this: it loads the base unsharded, even under ZeRO stage 3.

    adapters  a folder that `PeftModel.save_pretrained` wrote
    """
    from peft import PeftModel
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    return PeftModel.from_pretrained(load(), str(adapters)).merge_and_unload()


def shapes(model: Any, twice: bool = False) -> dict[str, list[int]]:
    """Names and shapes of the tensors in a checkpoint of `model`; if the model has adapters, only those of the adapters.

    twice  whether a tied tensor is listed under each of its names, not once
    """
    from peft import PeftModel, get_peft_model_state_dict

    tensors: dict[str, Any] = dict(model.named_parameters(remove_duplicate=not twice))
    if isinstance(model, PeftModel):
        tensors = get_peft_model_state_dict(model, state_dict=tensors, save_embedding_layers=False)
    return {name: list(getattr(tensor, "ds_shape", tensor.shape)) for name, tensor in tensors.items()}
