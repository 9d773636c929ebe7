"""A reranker in shards over the ranks of a machine, for one that is larger than a GPU: ZeRO stage 3, for inference.

Each layer is put together from all ranks when it is needed and dropped after, so all ranks must be in a forward pass at the
same time, though not of the same rows: one that has nothing left to score takes part until the last one is done.
"""

from pathlib import Path
from typing import Any

from selftrain.config import RuntimeConfig
from selftrain.launch.launch import keep_until_exit
from selftrain.models.deepspeed_ops import start_distributed
from selftrain.models.models import load_classifier, load_tokenizer
from selftrain.rerank.reranker import Reranker


class Sharded:
    """The model's forward pass; every rank must come to `finish` after its last one."""

    def __init__(self, model: Any, settings: dict[str, Any]) -> None:
        import deepspeed

        self.engine, *_ = deepspeed.initialize(model=model.eval(), config=settings)
        keep_until_exit(self.engine)

    def __call__(self, **inputs: Any) -> Any:
        """The model's output for this rank's `inputs`."""
        self._any_busy(True)
        return self.engine.module(**inputs)

    def finish(self) -> None:
        """Take part in the passes of the other ranks, until none has one to make."""
        import torch

        ids = torch.zeros(1, 1, dtype=torch.long, device=self.engine.device)
        while self._any_busy(False):
            with torch.inference_mode():
                self.engine.module(input_ids=ids, use_cache=False)

    def _any_busy(self, busy: bool) -> bool:
        import torch

        flag = torch.tensor([float(busy)], device=self.engine.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


def load_sharded(folder: Path, runtime: RuntimeConfig) -> Reranker:
    """The reranker in `folder`, of which this rank holds its share. Called by every rank; `forward` is a `Sharded`."""
    from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config

    start_distributed(runtime.device)
    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3, "overlap_comm": False}}
    asked = HfDeepSpeedConfig(settings)  # as long as it lives, models are loaded in shards
    model = load_classifier(folder)
    unset_hf_deepspeed_config()
    del asked
    forward = Sharded(model, settings)
    return Reranker(forward.engine.module, load_tokenizer(folder), forward)
