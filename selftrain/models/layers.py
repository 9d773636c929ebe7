"""What a sequence classifier can do beside scoring texts: lose layers, predict tokens, and read several programs in one row."""

from inspect import signature
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
    check_layers(number, len(layers))
    trunk.layers = layers[:number]
    shorten(config, number)


def check_layers(number: int | None, there: int) -> None:
    """Raise UsageError where `number`, the setting `reward.layers`, is above the model's number of layers."""
    if number is not None and number > there:
        raise UsageError(f"reward.layers is {number}, and the model has {there} layers; lower it")


def shorten(config: Any, number: int) -> None:
    """Make a model's config that of its first `number` layers."""
    config.num_hidden_layers = number
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:number]


def tied_head(classifier: Any) -> Any:
    """The embedding, which is the language model's head too. Raises UsageError where it is not, or is sharded."""
    embedding, config = classifier.get_input_embeddings(), classifier.config
    names = ("final_logit_softcapping", "logits_scaling", "logit_scale")
    changed = [name for name in names if getattr(config, name, None)]
    if (
        not config.tie_word_embeddings
        or embedding.weight.shape[-1] != classifier.score.in_features
        or changed
    ):
        raise UsageError(
            f"reward.lm_loss needs a model whose language-model head is its embedding, and this {type(classifier).__name__} has "
            f"{', '.join(changed) or 'a head of its own (tie_word_embeddings is false)'}; set it to 0"
        )
    if hasattr(embedding.weight, "ds_id"):
        raise UsageError(
            "reward.lm_loss does not work with ZeRO stage 3, which shards the embedding; set it to 0"
        )
    return embedding


def check_packed(classifier: Any) -> None:
    """Raise UsageError where the positions of a text's tokens cannot be given to the classifier."""
    if "position_ids" not in signature(classifier.forward).parameters:
        raise UsageError(
            f"reward.packed needs a model that is told the positions of its tokens, and a {type(classifier).__name__} is not; "
            "set it to false"
        )
