"""Low-rank adapters (LoRA): trained while the base weights are frozen, and merged into them for the export.

Functions import peft themselves: the import takes a second.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from selftrain.config import LoraConfig
from selftrain.errors import UsageError

ROOT = "base_model.model."
"""How the names of a PeftModel's parameters begin."""


def add(model: Any, settings: LoraConfig, head: bool = False) -> Any:
    """A PeftModel: `model` with adapters on all linear layers of its trunk, everything else frozen.

    The adapters' random halves come from torch's generator (seed it first); the product starts at zero.

    head  also train `model.score`, a sequence classifier's new head, in full

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
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number does
        lora_dropout=settings.dropout,
        target_modules=[prefix + name for name in names],
        modules_to_save=["score"] if head else None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in trunk.modules()),
    )
    return get_peft_model(model, config)


def merged(base: Any, settings: LoraConfig, weights: Mapping[str, Tensor]) -> Any:
    """An ordinary transformers model: `base`, freshly loaded, with trained adapters added to its weights.

    weights  unsharded tensors, of the trained parameters at least; named as in a PeftModel, with or without a prefix of a
             wrapper (DDP, DeepSpeed)
    """
    trained = {name[name.index(ROOT) :]: tensor for name, tensor in weights.items() if ROOT in name}
    model = add(base, settings)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(trained[name])
    return model.merge_and_unload()


def from_folder(load: Callable[[], Any], adapters: Path) -> Any:
    """An ordinary model: the base that `load` returns, merged with adapters that `PeftModel.save_pretrained` wrote.

    Called by one process alone: it loads the base unsharded even under ZeRO stage 3.
    """
    from peft import PeftModel
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    return PeftModel.from_pretrained(load(), str(adapters)).merge_and_unload()


def shapes(model: Any, twice: bool = False) -> dict[str, list[int]]:
    """Names and shapes of the tensors in a checkpoint of `model`; only of its adapters where it has some.

    twice  list tied tensors under each of their names
    """
    from peft import PeftModel, get_peft_model_state_dict

    tensors: dict[str, Any] = dict(model.named_parameters(remove_duplicate=not twice))
    if isinstance(model, PeftModel):
        tensors = get_peft_model_state_dict(model, state_dict=tensors, save_embedding_layers=False)
    return {name: list(getattr(tensor, "ds_shape", tensor.shape)) for name, tensor in tensors.items()}
