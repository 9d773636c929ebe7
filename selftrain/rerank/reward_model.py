"""Reward models of others, as rankers to compare the reranker with: one-label sequence classifiers from a folder or the hub.

Not covered: encoders such as DeBERTa, models that run code of their own, and models that give several scores.
"""

from collections.abc import Sequence
from pathlib import Path

from selftrain.config import EvaluateConfig, ModelConfig
from selftrain.errors import UsageError
from selftrain.models.weights import base_digest, hub_folder
from selftrain.rerank.reranker import Reranker


class RewardModel(Reranker):
    """A reward model, which scores conversations if its tokenizer has a chat template, and otherwise prompt + completion."""

    def encode(self, problems: Sequence[tuple[str, Sequence[str]]]) -> list[list[list[int]]]:
        """Token ids [problems][candidates]: the prompt is the user's message, the completion the assistant's.

        Raises UsageError where the chat template fails.
        """
        if not self.tokenizer.chat_template:
            return super().encode(problems)
        return [[self._conversation(prompt, text) for text in candidates] for prompt, candidates in problems]

    def _conversation(self, prompt: str, completion: str) -> list[int]:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:  # a template is a program of the checkpoint's and raises what it likes
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"the chat template of the reward model fails: {reason}") from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def model_at(place: str) -> ModelConfig:
    """The model at `place`, a value of `evaluate.reward_models`: a folder, or a hub id with or without `@COMMIT`."""
    if Path(place).is_dir():
        return ModelConfig(base=place, prompt_style="chat")
    name, _, commit = place.partition("@")
    return ModelConfig(base=name, revision=commit or None, prompt_style="chat")


def reward_model_digests(config: EvaluateConfig) -> dict[str, str]:
    """Name of each reward model -> sha256 of its folder's files, its chat template's too, or its hub commit.

    Raises UsageError where there is no such model, or the hub does not answer.
    """
    found = {}
    for name, place in config.reward_models.items():
        digest = base_digest(model_at(place), f"evaluate.reward_models.{name}")
        assert digest is not None
        found[name] = digest
    return found


def check_reward_model(name: str, place: str) -> None:
    """Raise UsageError where the model at `place` cannot rank: it is no decoder with one score, or its chat template fails."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from selftrain.models.models import check_labels, is_classifier, load_tokenizer
    from selftrain.models.shapes import read_config

    model = model_at(place)
    config = read_config(model)
    field = f"evaluate.reward_models.{name}: {model.base}"
    if not is_classifier(config):
        raise UsageError(
            f"{field}: expected a reward model, a sequence classifier with one label; its config.json names "
            f"{config.architectures or []}"
        )
    check_labels(str(model.base), config)
    with torch.device("meta"):
        empty = AutoModelForSequenceClassification.from_config(config)
    if not isinstance(getattr(empty, "score", None), torch.nn.Linear):
        raise UsageError(
            f"{field}: a {type(empty).__name__} has no linear `score` head at the last token; give a decoder, such as a Llama"
        )
    RewardModel(empty, load_tokenizer(str(model.base), **model.options)).encode([("x = 1", ["y = 2"])])


def reward_model_folder(place: str, digest: str) -> Path:
    """The folder of the model at `place`, which is downloaded if it is a hub's. `digest`: that of `reward_model_digests`.

    Raises UsageError where the hub does not answer.
    """
    if Path(place).is_dir():
        return Path(place)
    return hub_folder(str(model_at(place).base), digest)
