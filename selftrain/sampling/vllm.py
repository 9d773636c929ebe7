"""Engine `vllm`: decodes with vLLM's offline engine, on GPUs.

Written for vLLM 0.22 to 0.33. No test runs vLLM; tests check the arguments of `vllm.LLM` and how its outputs are read.

The seed of a completion depends only on the prompt's name and the completion's number. But vLLM's arithmetic depends on the
batch, so a completion may differ in another batch where a draw is close to the boundary between two tokens.
"""

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain.config import SampleConfig
from selftrain.errors import UsageError
from selftrain.sampling import Sample
from selftrain.sampling.engine import Prompts, Sampler, Stops

ALONE, BESIDE_TRAINER = 0.9, 0.35
"""Share of a GPU's memory that the engine takes, including weights: alone on the GPU, and on the GPU of a trainer."""


class Engine(Sampler):
    """Samples with the checkpoint in `folder`, with tensor parallelism over all GPUs that this process sees.

    Under torchrun each rank has its own engine, on the GPU that the rank trains on.

    Raises UsageError where vLLM is not installed or this process sees no GPU.
    """

    def __init__(self, folder: Path, settings: SampleConfig) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UsageError(
                "engine vllm needs the package vllm, which is not installed here; it asks for versions of torch and "
                "transformers of its own, so give it an environment of its own (`pip install vllm` first), or choose "
                "engine hf, which runs on GPUs too"
            )
        super().__init__(folder, settings)
        self.llm = start(folder)

    def _sample(
        self, prompts: Prompts, n: int, seed: int, names: Sequence[str], stops: Stops
    ) -> list[list[Sample]]:
        import vllm

        asked = [
            vllm.SamplingParams(**parameters(self.settings, n, name, self.ends, texts))
            for name, texts in zip(names, stops, strict=True)
        ]
        outputs = self.llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts], asked, use_tqdm=False
        )
        return [[sample_of(completion) for completion in output.outputs] for output in outputs]

    def reload(self, folder: Path) -> None:
        """Sample with the weights of the checkpoint in `folder` from now on; it must have the same architecture."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self.llm.reset_prefix_cache()  # the cached keys and values were computed with the old weights


def start(folder: Path) -> Any:
    """Create the `vllm.LLM` of the checkpoint in `folder`."""
    import torch

    trained = "LOCAL_RANK" in os.environ  # torchrun sets it, so this process trains too
    if trained:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # run the engine inside the rank's own process
    import vllm

    return vllm.LLM(**arguments(folder, torch.cuda.device_count(), trained))


def arguments(folder: Path, devices: int, trained: bool) -> dict[str, Any]:
    """Arguments of `vllm.LLM`.

    devices  number of GPUs that this process sees
    trained  whether this process is one of torchrun's ranks and trains; it then uses one GPU

    Raises UsageError without a GPU.
    """
    if not devices:
        raise UsageError(
            "engine vllm needs a GPU, and this process sees none; choose engine hf or ctranslate2"
        )
    return {
        "model": str(folder),
        "dtype": "bfloat16",
        "tensor_parallel_size": 1 if trained else devices,
        "distributed_executor_backend": "external_launcher" if trained else None,
        "gpu_memory_utilization": BESIDE_TRAINER if trained else ALONE,
        "logprobs_mode": "raw_logprobs",  # at temperature 1, whatever the sampling temperature
        "generation_config": "vllm",  # ignore the checkpoint's generation_config.json
        "seed": 0,
    }


def parameters(
    settings: SampleConfig, n: int, name: str, ends: Sequence[int], stops: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams` for the prompt called `name`; n = 0 asks for the greedy completion.

    vLLM seeds the k-th of n completions with `seed` + k.
    """
    drawn: dict[str, Any] = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": seed_of(name),
    }
    if settings.top_k:
        drawn["top_k"] = settings.top_k
    return {
        "n": max(1, n),
        "max_tokens": settings.max_new_tokens,
        "stop_token_ids": list(ends),
        "logprobs": 0,  # only the log-probability of the sampled token
        "detokenize": bool(stops),
        **({"stop": list(stops)} if stops else {}),
        **(drawn if n else {"temperature": 0.0}),
    }


def seed_of(name: str) -> int:
    """A seed below 2^62 from a hash of `name`."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2


def sample_of(completion: Any) -> Sample:
    """Convert a `vllm.CompletionOutput` to a `Sample`. Its tokens include those of the stop text, which its text does not."""
    ids = list(completion.token_ids)
    logprobs = [float(place[token].logprob) for token, place in zip(ids, completion.logprobs, strict=True)]
    return Sample(ids, logprobs, completion.finish_reason == "stop")
