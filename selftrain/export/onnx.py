"""Writes an exported reranker as an ONNX file, which ONNX Runtime runs without PyTorch.

Inputs `input_ids` and `attention_mask`, [programs, tokens] int64, padded on the right; output `logits`, [programs, 1] float32.
"""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError

FILE = "model.onnx"


def write_onnx(folder: Path) -> None:
    """Write the checkpoint in `folder` as `FILE` beside it, in float32.

    Raises UsageError where the packages for it are not installed, or PyTorch cannot export this architecture.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UsageError(f"--onnx: not installed: {', '.join(missing)}; `pip install onnx onnxscript`")
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # `eager`: the other kinds of attention choose their kernel by the input, which an exported graph cannot.
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )

    class Scores(torch.nn.Module):
        """The classifier, with its logits as the only output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits

    ids = torch.full((2, 8), 1 + (model.config.pad_token_id or 0), dtype=torch.int64)
    axes = {
        0: torch.export.Dim("programs", min=1, max=1 << 16),
        1: torch.export.Dim("tokens", min=1, max=model.config.get_text_config().max_position_embeddings),
    }
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                Scores().eval(),
                (ids, torch.ones_like(ids)),
                dynamo=True,
                verbose=False,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes=(axes, axes),
            )
            assert program is not None
            program.save(folder / FILE)
    except Exception as error:  # the exporter raises what its many parts raise
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"--onnx: PyTorch cannot export a {type(model).__name__}: {reason}") from error
