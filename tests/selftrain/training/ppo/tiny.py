"""A tiny language model for the tests of PPO."""

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from selftrain.training.ppo.model import completion_states

END = 1
VOCABULARY = 24


def make_model(seed: int = 0, hidden: int = 32, spread: float = 0.3) -> LlamaForCausalLM:
    """A Llama with a vocabulary of 24. With weights of this `spread` its distributions are far from uniform."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            initializer_range=spread,
            bos_token_id=None,
            eos_token_id=END,
            pad_token_id=0,
        )
    )
    return model.eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer for `make_model`: tokens 0 and 1 are padding and end, the others are the letters a to v."""
    words = ["<pad>", "<end>", *"abcdefghijklmnopqrstuv"]
    made = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, []))
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")


def reference_logprobs(model, batch, temperature):
    """[completion tokens] log-probabilities of the completions' own tokens, by the direct formula."""
    logits = model.lm_head(completion_states(model.model, batch))
    logs = (logits / temperature).log_softmax(-1)
    return logs.gather(1, batch.targets()[:, None]).squeeze(1)


class Killed(Exception):
    """What ends a run in `die_after`."""


def die_after(step):
    """An `on_step` that raises `Killed` after the step of this number."""

    def on_step(row):
        if row["step"] == step:
            raise Killed

    return on_step
