"""Shortens a sequence classifier to its first layers."""

from typing import Any

from selftrain.errors import UsageError


def keep_layers(classifier: Any, number: int) -> None:
    """Remove all layers of a sequence classifier's trunk but the first `number`, and say so in its config.

    Raises UsageError where the trunk has fewer layers, or its layers are not in `layers`, as those of a Llama are.
    """
    from torch import nn

    trunk, config = classifier.base_model, classifier.config
    layers = getattr(trunk, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UsageError(
            f"reward.layers: the layers of a {type(trunk).__name__} are not known; set it to null"
        )
    if len(layers) < number:
        raise UsageError(f"reward.layers is {number}, and the model has {len(layers)} layers; lower it")
    trunk.layers = layers[:number]
    config.num_hidden_layers = number
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:number]
