"""Tests of log-probabilities that are computed in chunks: results and gradients equal the direct formula, and memory is bounded."""

import subprocess
import sys

import pytest
import torch

from selftrain.models import footprint
from selftrain.models.logprobs import summed_logprobs
from selftrain.models.vocabulary import Vocabulary, chosen_logprobs
from tests.selftrain.training.ppo.tiny import make_model

TOKENS, HIDDEN, ENTRIES = 37, 16, 50


@pytest.fixture(params=[1, 7, 36, 37, 1000])
def chunk(request, monkeypatch):
    """Chunks of this many tokens: one, some with a shorter last one, and all."""
    monkeypatch.setattr(footprint, "LOGIT_BYTES", 4 * ENTRIES * request.param)


def head(seed, bias=True, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.nn.Linear(HIDDEN, ENTRIES, bias=bias, dtype=dtype)


def states(seed):
    return torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(seed)).requires_grad_()


TARGETS = torch.randint(ENTRIES, (TOKENS,), generator=torch.Generator().manual_seed(9))
WEIGHTS = torch.randn(TOKENS, generator=torch.Generator().manual_seed(8))


def directly(layer, read, temperature):
    return (layer(read).float() / temperature).log_softmax(-1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_chunks_give_the_direct_formula_and_its_gradients(chunk, bias, temperature):
    layer, plain, read, also = head(0, bias), head(0, bias), states(1), states(1)
    found = chosen_logprobs(read, layer.weight, layer.bias, TARGETS, temperature)
    wanted = directly(plain, also, temperature).gather(1, TARGETS[:, None]).squeeze(1)
    torch.testing.assert_close(found, wanted)
    (found * WEIGHTS).sum().backward()
    (wanted * WEIGHTS).sum().backward()
    for ours, theirs in [(read, also), *zip(layer.parameters(), plain.parameters(), strict=True)]:
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_frozen_head_has_no_gradient(chunk):
    layer, read, also = head(0).requires_grad_(False), states(1), states(1)
    (chosen_logprobs(read, layer.weight, layer.bias, TARGETS) * WEIGHTS).sum().backward()
    (directly(layer, also, 1.0).gather(1, TARGETS[:, None]).squeeze(1) * WEIGHTS).sum().backward()
    torch.testing.assert_close(read.grad, also.grad)
    assert layer.weight.grad is None


def test_frozen_states_give_the_head_its_gradient(chunk):
    layer, read = head(0), states(1).detach()
    chosen_logprobs(read, layer.weight, layer.bias, TARGETS).sum().backward()
    assert layer.weight.grad is not None
    assert read.grad is None


def test_under_autocast_the_weights_gradient_is_summed_in_float32(chunk):
    """In bfloat16 each of many sums would round; here the result is as near to float32 as one product in bfloat16."""
    layer, plain = head(0), head(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = chosen_logprobs(states(1), layer.weight, layer.bias, TARGETS)
    assert found.dtype == torch.float32
    (found * WEIGHTS).sum().backward()
    (directly(plain, states(1), 1.0).gather(1, TARGETS[:, None]).squeeze(1) * WEIGHTS).sum().backward()
    assert (layer.weight.grad - plain.weight.grad).norm() < 0.01 * plain.weight.grad.norm()


def test_comparison_with_a_reference(chunk):
    policy, other, read, theirs = head(0), head(5), states(1), states(6)
    logprobs, compared = Vocabulary(0.7)(policy, read, TARGETS, (other, theirs))
    own, reference = directly(policy, read, 0.7), directly(other, theirs, 0.7)
    torch.testing.assert_close(logprobs, own.gather(1, TARGETS[:, None]).squeeze(1))
    wanted = [
        reference.gather(1, TARGETS[:, None]).squeeze(1),
        -(own.exp() * own).sum(-1),
        (own.exp() * (own - reference)).sum(-1),
    ]
    torch.testing.assert_close(compared, torch.stack(wanted, -1))
    assert not compared.requires_grad


def test_summed_logprobs_of_a_long_row(monkeypatch):
    """A row whose logits do not fit together is read in pieces, with the KV cache of what was read before."""
    model, prompts = make_model(), [[3], [4, 5, 6]]
    rows = [[7, 8, 9, 10, 11, 12, 1], [13]]
    whole = summed_logprobs(model, prompts, rows)
    monkeypatch.setattr(footprint, "LOGIT_BYTES", 4 * 24 * 3)
    assert summed_logprobs(model, prompts, rows) == pytest.approx(whole, abs=1e-5)
    logs = model(torch.tensor([prompts[0] + rows[0]])).logits[0].log_softmax(-1)
    assert whole[0] == pytest.approx(
        sum(logs[at, token].item() for at, token in enumerate(rows[0])), abs=1e-5
    )


MEASURED = """
import pathlib, re, torch
from selftrain.models.vocabulary import chosen_logprobs

def peak():  # not ru_maxrss, which begins with the memory of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) << 10

layer = torch.nn.Linear(64, 152_000, bias=False)
before = peak()
for tokens in (300, 1_000):
    states, targets = torch.randn(tokens, 64, requires_grad=True), torch.zeros(tokens, dtype=torch.long)
    chosen_logprobs(states, layer.weight, None, targets, 0.9).sum().backward()
    print(peak() - before)
"""


@pytest.mark.slow
def test_memory_at_a_vocabulary_of_152_thousand_is_bounded():
    """1,000 tokens' logits have 608 MB in float32; the plan's formula holds, for all tensors together."""
    found = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, check=True).stdout
    few, many = map(int, found.split())
    bound = footprint.LOGIT_TENSORS * footprint.LOGIT_BYTES + 2 * 4 * 64 * 152_000
    assert 0.3 * bound < many < 1.1 * bound
    assert many - few < footprint.LOGIT_BYTES
