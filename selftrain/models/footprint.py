"""Estimates the peak memory of one process, term by term, without importing torch.

Terms, in bytes:

    libraries    the interpreter and the modules that a training child imports; on a GPU, CUDA's context and kernels
    weights      weights of the model that is trained
    gradients    gradients, including DDP's copy in its buckets
    optimizer    AdamW's two moments; under DeepSpeed also its own copy of the weights
    activations  tensors that the forward pass of one micro batch keeps for the backward pass, and the logits of the loss
    kv cache     KV cache of rollouts and sampling, with the logits of one decoding step
    other models frozen reference, reranker, and the copy of the policy for rollouts
"""

from dataclasses import dataclass, field

from selftrain.config import LoraConfig, PPOConfig, RewardConfig, RuntimeConfig, SftConfig
from selftrain.models.shapes import Shape
from selftrain.models.zero import zero_of

FLOAT = 4
"""Bytes per number in float32, the type in which models are loaded, exported and (on CPU) trained."""


def frozen_bytes(runtime: RuntimeConfig) -> int:
    """Bytes per number of the models that PPO does not train: reference, reranker and the policy's copy for rollouts."""
    return FLOAT if runtime.device == "cpu" else 2


LIBRARIES = {"training": 560 << 20, "sampling": 480 << 20}
"""Measured resident memory of a child process on CPU before it loads a model, in bytes, by kind of stage."""
CUDA_LIBRARIES = 700 << 20
"""GPU memory of CUDA's context and kernels, in bytes."""
HEAD_TILE = (4096, 32768)
"""Size of the tiles in which TRL computes SFT's logits on GPUs: (tokens, vocabulary entries)."""
LOGIT_BYTES = 128 << 20
"""Most bytes of the float32 logits that `models.vocabulary` computes at a time; more only where one token's are more."""
LOGIT_TENSORS = 5
"""Number of tensors of the size of the logits that computing a loss and its gradient takes: logits in the narrow and the wide type,
scaled by the temperature, log-softmax, and its gradients."""


@dataclass(frozen=True)
class Memory:
    """Peak memory of one process, bytes.

    terms  bytes by term, on the process's device
    host   bytes that DeepSpeed's offloading puts into the host's memory
    """

    terms: dict[str, int] = field(default_factory=dict)
    host: int = 0

    @property
    def total(self) -> int:
        """Sum of the terms: bytes on the device."""
        return sum(self.terms.values())


def world(runtime: RuntimeConfig) -> int:
    """Number of training processes on all nodes together."""
    return runtime.processes * runtime.nodes


def training_memory(
    shape: Shape,
    parameters: int,
    runtime: RuntimeConfig,
    *,
    rows: int,
    width: float,
    lora: LoraConfig | None = None,
    logits: float = 0,
) -> Memory:
    """Memory of one rank that trains a model with `parameters` parameters on the trunk of `shape`.

    rows, width  a micro batch's number of sequences, and their padded length in tokens
    logits       bytes of the logits and their gradients; 0 for a model without an output layer over the vocabulary
    """
    adapters = shape.adapters(lora.rank) if lora else 0
    states = model_states(parameters, adapters or parameters, shape.largest, runtime)
    activations = activation_bytes(shape, rows * width, runtime)
    return Memory(states.terms | {"activations": int(activations + logits)}, states.host)


def model_states(parameters: int, trained: int, largest: int, runtime: RuntimeConfig) -> Memory:
    """The terms of one rank that do not depend on the batch: libraries, weights, gradients, optimizer.

    On GPUs under DeepSpeed these are DeepSpeed's own estimates (`estimate_zero2_model_states_mem_needs`,
    `estimate_zero3_model_states_mem_needs`), divided among the terms.

    parameters  number of the model's parameters
    trained     number of the trained parameters; with adapters, fewer than `parameters`
    largest     number of parameters of the largest module, which ZeRO stage 3 gathers at once
    """
    zero, ranks = zero_of(runtime), world(runtime)
    cpu = runtime.device == "cpu"
    weights: float
    gradients: float
    optimizer: float
    host = 0.0
    if zero.stage == 0:
        # DDP keeps a second copy of the gradients in buckets; autocast keeps bf16 copies of the weights during a forward pass.
        weights = FLOAT * parameters + (0 if cpu else 2 * trained)
        gradients = FLOAT * trained * (2 if ranks > 1 else 1)
        optimizer = 2 * FLOAT * trained
    elif cpu:  # all numbers are float32; on CPU, offloading has no effect
        share = ranks if zero.stage == 3 else 1
        weights = FLOAT * (parameters / share + (largest if zero.stage == 3 else 0))
        gradients = FLOAT * trained * (1 + 1 / ranks) / share if zero.stage > 1 else 2 * FLOAT * trained
        optimizer = 3 * FLOAT * trained / ranks
    else:
        weights = 2 * parameters / ranks + 4 * largest if zero.stage == 3 else 2 * parameters
        gradients = {1: 4 * trained, 2: 6 * trained / ranks, 3: 4 * trained / ranks}[zero.stage]
        optimizer = 12 * trained / ranks
        if zero.offload_optimizer:
            gradients, optimizer = (2 * trained if zero.stage == 1 else 0), 0
            host = 1.5 * trained * max(4 * ranks, 16) / runtime.processes
            if zero.stage == 3:
                host = 1.5 * 16 * trained / ranks
        if zero.offload_param:
            weights, host = 4 * largest, host + 1.5 * 2 * parameters / ranks
    return Memory(
        {
            "libraries": LIBRARIES["training"] if cpu else CUDA_LIBRARIES,
            "weights": int(weights),
            "gradients": int(gradients),
            "optimizer": int(optimizer),
        },
        int(host),
    )


def activation_bytes(shape: Shape, tokens: float, runtime: RuntimeConfig) -> float:
    """Bytes of the activations that the trunk keeps between forward and backward pass, for `tokens` tokens.

    Counted for a layer of a Llama: each of two norms keeps its input, the normalised input and its output; attention keeps
    queries, keys, values and its output; the gated MLP keeps four vectors of its inner size. Attention keeps no
    [tokens, tokens] matrix. With activation checkpointing, the input of every layer is kept, and one layer in full.
    """
    narrow = FLOAT if runtime.device == "cpu" else 2
    inner = shape.heads * shape.head_dim
    wide = 6 * shape.hidden
    rest = 2 * inner + 2 * shape.kv_heads * shape.head_dim + 4 * shape.intermediate
    layer = FLOAT * wide + narrow * rest
    if runtime.recomputes:
        return tokens * (FLOAT * shape.hidden * shape.layers + layer)
    return tokens * (layer * shape.layers + 2 * FLOAT * shape.hidden)


def head_bytes(shape: Shape, tokens: float, tiled: bool, trained: bool) -> float:
    """Bytes of the float32 logits, their log-softmax and their gradients for `tokens` tokens in SFT.

    tiled  whether the logits are computed in TRL's tiles (`HEAD_TILE`), not all at once
    """
    if tiled:
        rows, entries = min(tokens, HEAD_TILE[0]), min(shape.vocabulary, HEAD_TILE[1])
        return FLOAT * (3 * rows * entries + (shape.head if trained else 0))
    return FLOAT * 3 * tokens * shape.vocabulary


def chunk_tokens(vocabulary: int) -> int:
    """Number of tokens whose logits `models.vocabulary` computes at a time."""
    return max(1, LOGIT_BYTES // (FLOAT * vocabulary))


def chunked_head_bytes(shape: Shape, tokens: float, trained: bool) -> float:
    """Bytes of the logits, their log-softmax and their gradients where `models.vocabulary` computes them for `tokens` tokens.

    trained  whether the output layer is trained: then its gradient exists twice more while it is summed over several chunks
    """
    most = chunk_tokens(shape.vocabulary)
    sums = 2 * shape.head if trained and tokens > most else 0
    return FLOAT * (LOGIT_TENSORS * min(tokens, most) * shape.vocabulary + sums)


def decoding_bytes(shape: Shape, rows: float, length: float, number: int) -> int:
    """Bytes of the KV cache for `rows` sequences of `length` tokens, and of one decoding step's logits.

    number  bytes of a number in the cache

    One layer of the cache exists twice while it grows, since it is copied.
    """
    cache = rows * length * shape.kv_elements * number * (1 + 1 / shape.layers)
    return int(cache + rows * shape.vocabulary * 6 * FLOAT)


def reading_bytes(shape: Shape, tokens: float) -> int:
    """Bytes that an inference-only forward pass needs for `tokens` tokens: the widest part of one layer."""
    return int(FLOAT * tokens * (5 * shape.hidden + 4 * shape.intermediate))


def sft_memory(config: SftConfig, shape: Shape, runtime: RuntimeConfig, width: float | None = None) -> Memory:
    """Memory of one rank of stage `sft`; `width`: length of the longest row in tokens, by default `max_tokens`."""
    rows = micro_rows(config.batch_size, config.micro_batch_size, runtime)
    width = min(width or config.max_tokens, shape.context)
    return training_memory(
        shape,
        shape.parameters,
        runtime,
        rows=rows,
        width=width,
        lora=config.lora,
        logits=head_bytes(shape, rows * width, runtime.device == "cuda", config.lora is None),
    )


def reward_memory(
    config: RewardConfig, shape: Shape, runtime: RuntimeConfig, width: float | None = None
) -> Memory:
    """Memory of one rank of stage `train_reward`; `width` as for `sft_memory`. Each pair gives two rows."""
    pairs = micro_rows(config.batch_size, config.micro_batch_size, runtime)
    width = min(width or config.max_tokens, shape.context)
    return training_memory(
        shape,
        shape.classifier,
        runtime,
        rows=2 * pairs,
        width=width,
        lora=config.lora,
        logits=chunked_head_bytes(shape, pairs * width, config.lora is None) if config.lm_loss else 0,
    )


def ppo_memory(
    config: PPOConfig,
    shape: Shape,
    judge: Shape,
    runtime: RuntimeConfig,
    prompt: float,
    completion: float,
) -> Memory:
    """Memory of one rank of stage `ppo`: policy, frozen reference, reranker, and the larger of rollout and update.

    judge       the reranker's shape
    prompt      length of the longest prompt, tokens
    completion  length of the longest completion, tokens
    """
    ranks = world(runtime)
    trunk = shape.classifier
    separate = config.critic == "separate"
    values = {"separate": trunk, "shared": shape.hidden, None: 0}
    trained = shape.parameters + values[config.critic]
    rows = min(config.micro_batch, max(1, config.mini_batch // ranks))
    width = min(prompt + completion, shape.context)
    policy = training_memory(
        shape,
        trained,
        runtime,
        rows=rows * (2 if separate else 1),
        width=width,
        lora=config.lora,
        logits=chunked_head_bytes(shape, rows * completion, config.lora is None),
    )
    others = frozen_bytes(runtime) * other_parameters(config, shape.parameters, judge.classifier, runtime)
    share = config.rollout_batch / ranks
    cache = decoding_bytes(shape, share, width, frozen_bytes(runtime)) + reading_bytes(shape, share * prompt)
    terms = dict(policy.terms)
    # A rollout's cache is freed before the update begins.
    if cache > terms["activations"]:
        terms["activations"], terms["kv cache"] = 0, cache
    return Memory(terms | {"other models": others}, policy.host)


def other_parameters(config: PPOConfig, policy: int, reranker: int, runtime: RuntimeConfig) -> int:
    """Number of parameters of all models in a PPO process except the trained model.

    These are the reranker; the reference, unless it is the policy without its adapters; and the policy's copy for rollouts, which
    exists under ZeRO stage 3 and in a sampling engine.
    """
    copies = (config.lora is None or config.start == "previous") + (
        zero_of(runtime).stage == 3 or config.engine != "hf"
    )
    return reranker + copies * policy


def micro_rows(batch: int, micro: int, runtime: RuntimeConfig) -> int:
    """Number of rows of a micro batch in one process, as `training.common.trainer_arguments` sets it."""
    return min(micro, max(1, batch // world(runtime)))


def rank_bytes(
    settings: SftConfig | RewardConfig | PPOConfig, parameters: int, runtime: RuntimeConfig
) -> int:
    """A lower bound on the bytes that each rank of a training stage needs on its device (on CPU: in the machine's memory).

    settings    the stage's part of the config
    parameters  number of parameters of the model that it trains

    `launch` checks this bound before it starts ranks. Neither activations nor adapters are counted, so that the check refuses no
    run that might fit.
    """
    total, others = parameters, 0
    if isinstance(settings, PPOConfig):
        total += parameters if settings.critic == "separate" else 0
        others = frozen_bytes(runtime) * other_parameters(settings, parameters, parameters, runtime)
    return model_states(total, 0 if settings.lora else total, 0, runtime).total + others
