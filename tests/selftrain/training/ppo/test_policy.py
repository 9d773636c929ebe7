"""Tests of the policy with its value head: padding has no effect, and the numbers equal those of plain transformers."""

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from selftrain.errors import UsageError
from selftrain.training.ppo.model import PolicyWithValue, Sequences, check_head, completion_states
from tests.selftrain.training.ppo.tiny import make_model, reference_logprobs

PROMPTS = [[5, 6, 7, 8, 9], [3]]
COMPLETIONS = [[10, 1], [11, 12, 13, 1]]


def with_value(tiny, temperature=1.0):
    model = PolicyWithValue(tiny, temperature)
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(0))
    return model


def itself(model):
    """The model as the reference of a policy."""
    return lambda batch: (model.lm_head, completion_states(model.model, batch))


def by_hand(tiny, prompt, completion, temperature=1.0):
    """Log-probabilities of the completion's tokens and entropies, one unpadded row through the whole model."""
    with torch.no_grad():
        logits = tiny(torch.tensor([prompt + completion])).logits[0] / temperature
    logs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return logs[torch.arange(len(completion)), torch.tensor(completion)], -(logs.exp() * logs).sum(-1)


def test_sequences():
    batch = Sequences.of(PROMPTS, COMPLETIONS, "cpu")
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9, 10, 1], [3, 11, 12, 13, 1, 0, 0]]
    # Row 0: 10 and 1 are predicted at 4 and 5. Row 1 starts at 7: its completion is predicted at 7 .. 10.
    assert batch.predicting().tolist() == [4, 5, 7, 8, 9, 10]
    assert batch.take(torch.tensor([1])).ids.tolist() == [[3, 11, 12, 13, 1]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_numbers_are_those_of_the_whole_model(tiny, temperature):
    batch = Sequences.of(PROMPTS, COMPLETIONS, "cpu")
    with torch.no_grad():
        logprobs, _, compared = with_value(tiny, temperature)(batch, reference=itself(tiny))
        entropies = compared[:, 1]
    pairs = [by_hand(tiny, p, c, temperature) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    torch.testing.assert_close(logprobs, torch.cat([logs for logs, _ in pairs]))
    torch.testing.assert_close(entropies, torch.cat([entropy for _, entropy in pairs]))
    with torch.no_grad():
        torch.testing.assert_close(reference_logprobs(tiny, batch, temperature), logprobs)


def test_extra_padding_changes_nothing(tiny):
    model = with_value(tiny)
    batch = Sequences.of(PROMPTS, COMPLETIONS, "cpu")
    garbage = torch.randint(2, 24, (2, 9), generator=torch.Generator().manual_seed(0))
    wider = Sequences(torch.cat([batch.ids, garbage], 1), batch.prompts, batch.completions)
    with torch.no_grad():
        for narrow, wide in zip(
            model(batch, reference=itself(tiny)), model(wider, reference=itself(tiny)), strict=True
        ):
            torch.testing.assert_close(narrow, wide)


def test_left_padding_gives_the_same_values_and_logprobs(tiny):
    """Rollouts pad on the left and the update on the right: both must see one network."""
    model = with_value(tiny)
    with torch.no_grad():
        logprobs, values, _ = model(Sequences.of(PROMPTS[1:], COMPLETIONS[1:], "cpu"))
        ids = torch.tensor([[0, 0, 0, 3, *COMPLETIONS[1]]])
        mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
        positions = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4]])
        hidden = tiny.model(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state[
            0, 3:-1
        ]
    logs = tiny.lm_head(hidden).log_softmax(-1)
    torch.testing.assert_close(logs[torch.arange(4), torch.tensor(COMPLETIONS[1])], logprobs)
    torch.testing.assert_close(model.value_head(hidden).squeeze(1), values)


@pytest.mark.parametrize("apart", [False, True])
def test_batch_mates_change_nothing(tiny, apart):
    """Log-probabilities and values of a completion are those it has alone, whatever is longer or shorter beside it."""
    model = with_value(tiny, 0.8)
    if apart:
        model.value_trunk = make_model(seed=3).model
    prompts, completions = [*PROMPTS, [4, 4, 4, 4, 4, 4, 4, 4]], [*COMPLETIONS, [2, 3, 5, 7, 11, 13]]
    whole = Sequences.of(prompts, completions, "cpu")
    with torch.no_grad():
        logprobs, values, _ = model(whole)
        reference = reference_logprobs(tiny, whole, 0.8)
        starts = [0, *whole.completions.cumsum(0).tolist()]
        for row in range(3):
            alone = Sequences.of(prompts[row : row + 1], completions[row : row + 1], "cpu")
            own = slice(starts[row], starts[row + 1])
            torch.testing.assert_close(model(alone)[0], logprobs[own])
            torch.testing.assert_close(model(alone)[1], values[own])
            torch.testing.assert_close(reference_logprobs(tiny, alone, 0.8), reference[own])


def test_value_head_starts_at_zero_and_dropout_is_off(tiny):
    model = PolicyWithValue(tiny.train(), 1.0)
    with torch.no_grad():
        _, values, _ = model(Sequences.of(PROMPTS, COMPLETIONS, "cpu"))
    assert values.abs().max() == 0
    assert not any(module.training for module in model.policy.modules())


def test_head_that_is_not_plain_is_refused(tiny):
    check_head(tiny, [3, 4])
    scaled = GraniteForCausalLM(
        GraniteConfig(
            vocab_size=24,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=4,
            logits_scaling=4.0,
        )
    )
    with pytest.raises(UsageError, match="cannot train a GraniteForCausalLM"):
        check_head(scaled, [3, 4])
