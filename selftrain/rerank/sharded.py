"""Shards a reranker that does not fit on one GPU over the ranks of a machine, with ZeRO stage 3 for inference.

Each layer is gathered from all ranks when a forward pass needs it, and freed afterwards. So all ranks must make their forward
passes at the same time, each for different rows. A rank that has scored all its rows makes passes over one token until the last
rank is done.
"""

from pathlib import Path
from typing import Any

from selftrain.config import RuntimeConfig
from selftrain.launch.launch import keep_until_exit
from selftrain.models.deepspeed_ops import start_distributed
from selftrain.models.models import load_classifier, load_tokenizer
from selftrain.models.precision import compute_as_trained
from selftrain.rerank.reranker import Reranker


class Sharded:
    """Makes the forward passes of a sharded model. Every rank must call `finish` after its last pass."""

    def __init__(self, model: Any, settings: dict[str, Any]) -> None:
        import deepspeed

        self.engine, *_ = deepspeed.initialize(model=model.eval(), config=settings)
        keep_until_exit(self.engine)

    def __call__(self, **inputs: Any) -> Any:
        """The model's output for this rank's `inputs`."""
        self._any_busy(True)
        return self.engine.module(**inputs)

    def finish(self) -> None:
        """Take part in the other ranks' passes until all ranks have called `finish`."""
        import torch

        ids = torch.zeros(1, 1, dtype=torch.long, device=self.engine.device)
        while self._any_busy(False):
            with torch.inference_mode():
                self.engine.module(input_ids=ids, use_cache=False)

    def _any_busy(self, busy: bool) -> bool:
        """Whether any rank has a forward pass to make; `busy`: whether this rank has one. Every rank must call this."""
        import torch

        flag = torch.tensor([float(busy)], device=self.engine.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


def load_sharded(folder: Path, runtime: RuntimeConfig, kind: type[Reranker] = Reranker) -> Reranker:
    """Load this rank's shard of the reranker of class `kind` in `folder`. Every rank must call this; `forward` of the result is a `Sharded`."""
    from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config

    start_distributed(runtime.device)
    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3, "overlap_comm": False}}
    sharding = HfDeepSpeedConfig(settings)  # while this object lives, transformers loads models in shards
    model = load_classifier(folder)
    unset_hf_deepspeed_config()
    del sharding
    forward = Sharded(model, settings)
    return kind(compute_as_trained(forward.engine.module), load_tokenizer(folder), forward)
