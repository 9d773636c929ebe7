"""Finds learning rates that are too high for pretrained weights."""

from collections.abc import Iterator
from typing import Any

from selftrain.config import RunConfig

HIGHEST, HIGHEST_LORA = 1e-4, 1e-3
"""Highest usual peak learning rates of AdamW on pretrained weights: of all weights, and of low-rank adapters."""


def too_high(config: RunConfig) -> Iterator[str]:
    """Warnings about learning rates above the usual ones, for stages that train pretrained weights.

    Tiny models with random weights need rates around 1e-3, which destroy what a pretrained model knows. The score head's own
    rate is not checked: the head is new.
    """
    generator = None if config.model.random else config.model.base
    judge = None if config.reward.random else config.reward.base or generator
    names = [
        ("sft", "learning_rate", generator if config.sft.epochs else None),
        ("reward", "learning_rate", judge),
        ("ppo", "learning_rate", generator if config.policy_rounds else None),
    ]
    if config.reward.later_epochs is not None:
        names.append(("reward", "later_learning_rate", judge))
    for section, field, base in names:
        settings: Any = getattr(config, section)
        rate, highest = getattr(settings, field), HIGHEST_LORA if settings.lora else HIGHEST
        if base is not None and rate is not None and rate > highest:
            yield (
                f"{section}.{field} is {rate:g}, and it trains {base}: above {highest:g} pretrained weights are likely to be "
                "damaged. Usual are 1e-6 to 5e-5 for all weights (the smaller the model, the higher; PPO the lowest) and 1e-5 "
                "to 3e-4 for adapters (lora)"
            )
