"""Checks a run's models before its first stage and in a dry run: vocabulary, lengths, chat template."""

import tempfile
from pathlib import Path

from selftrain.cache_key import canonical_json, fingerprint
from selftrain.launch.launch import launch
from selftrain.models.layers import check_layers
from selftrain.models.weights import base_digest
from selftrain.plan.learning_rates import too_high
from selftrain.plan.suitable import check_lengths
from selftrain.rerank.reward_model import reward_model_digests
from selftrain.stage import Context
from selftrain.store.store import replace_file
from tasks.run import LOGGER, Run


def check_models(run: Run) -> None:
    """Raise UsageError if a stage would fail because of the models (see `selftrain.plan.suitable`).

    Logs a warning for each learning rate that is too high for pretrained weights.

    For pretrained models this runs a child process, once for each combination of models, settings, library versions and commit.
    """
    config = run.config
    for line in too_high(config):
        LOGGER.warning("%s", line)
    if config.model.base is None and config.reward.base is None and not config.evaluate.reward_models:
        names = ("sft.max_tokens", "reward.max_tokens", "sample.max_new_tokens")
        check_lengths(config, config.model.max_tokens, names)
        check_layers(config.reward.layers, config.model.layers)
        return
    looked_at = {
        "content": [
            base_digest(config.model),
            base_digest(config.reward.model, "reward.base"),
            reward_model_digests(config.evaluate),
        ],
        "settings": [
            canonical_json(part, "settings")
            for part in (config.model, config.sft, config.sample, config.reward, config.ppo)
        ],
        "libraries": run.libraries,
        "commit": run.commit,
    }
    mark = run.store.local / "suitable" / fingerprint(looked_at)
    if mark.is_file():
        return
    alone = config.runtime.model_copy(
        update={"nodes": 1, "processes": 1, "device": "cpu", "launcher": "torchrun", "deepspeed": None}
    )
    with tempfile.TemporaryDirectory(prefix="selftrain-models-") as scratch:
        context = Context(
            {"run": canonical_json(config, "run")}, {}, Path(scratch), alone, lambda *_, **__: None
        )
        launch("selftrain.plan.suitable", context)
    with run.store.writing():
        replace_file(mark, b"")
