"""The longest input of a model, and whether a prompt fits into it."""

from typing import Any


def fits(prompt: int, context: int | None, new: int) -> bool:
    """Whether a prompt is not empty and leaves room for the completion.

    prompt   length of the prompt, tokens
    context  the model's longest input, tokens; None: no bound
    new      longest completion, tokens

    Sampling and PPO leave out prompts that do not fit, and count them.
    """
    return prompt >= 1 and (context is None or prompt + new <= context)


def context_of(config: Any) -> int | None:
    """The longest input of a model with this transformers config, in tokens; None where the config gives no bound.

    Scaled rotary position embeddings extend the original length by the scaling factor.
    """
    config = config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
    longest = next((found for name in names if isinstance(found := getattr(config, name, None), int)), None)
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind, factor = scaling.get("rope_type") or scaling.get("type"), scaling.get("factor")
    if longest is None or not factor:
        return longest
    if kind in ("linear", "dynamic"):
        return int(longest * factor)
    return max(longest, int((scaling.get("original_max_position_embeddings") or longest) * factor))
