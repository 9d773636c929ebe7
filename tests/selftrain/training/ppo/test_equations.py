"""Tests of the equations of PPO, GRPO and RLOO (KL, rewards, advantages, losses) against numbers worked out by hand."""

import math

import pytest
import torch

from selftrain.training.ppo import equations as eq


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_mask_covers_each_rows_own_tokens():
    mask = eq.completion_mask(torch.tensor([1, 3]), 3)
    assert mask.tolist() == [[True, False, False], [True, True, True]]


def test_masked_mean_ignores_what_is_outside():
    values = torch.tensor([[1.0, 100.0], [2.0, 6.0]])
    close(eq.masked_mean(values, torch.tensor([[True, False], [True, True]])), 3.0)


def test_whitening():
    # Inside: 1, 2, 6; mean 3; unbiased variance (4 + 1 + 9) / 2 = 7.
    values = torch.tensor([[1.0, 100.0], [2.0, 6.0]])
    mask = torch.tensor([[True, False], [True, True]])
    sd = math.sqrt(7)
    close(eq.whiten(values, mask), [[-2 / sd, 0.0], [-1 / sd, 3 / sd]])
    close(eq.whiten(values, mask, keep_mean=True), [[3 - 2 / sd, 0.0], [3 - 1 / sd, 3 + 3 / sd]])


def test_whitening_of_equal_or_single_values_is_finite():
    mask = torch.ones(1, 3, dtype=torch.bool)
    close(eq.whiten(torch.full((1, 3), 5.0), mask), [[0.0, 0.0, 0.0]])
    close(eq.whiten(torch.full((1, 1), 5.0), mask[:, :1]), [[0.0]])


def test_kl_estimators():
    # Policy 0.5 and 0.2, reference 0.25 and 0.4: r = 0.5 and 2.
    logprobs, reference = torch.tensor([0.5, 0.2]).log(), torch.tensor([0.25, 0.4]).log()
    close(eq.kl_estimate(logprobs, reference, "k1"), [math.log(2), -math.log(2)])
    close(eq.kl_estimate(logprobs, reference, "k3"), [0.5 - 1 + math.log(2), 2 - 1 - math.log(2)])


def test_the_k3_estimate_is_never_negative_and_both_are_zero_where_nothing_moved():
    logprobs = torch.linspace(-3, 0, 31)
    assert (eq.kl_estimate(logprobs, torch.full((31,), -1.5), "k3") >= 0).all()
    for estimator in ("k1", "k3"):
        assert eq.kl_estimate(logprobs, logprobs, estimator).abs().max() == 0


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimators_are_unbiased(estimator):
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.2, 0.3])
    exact = (p * (p / q).log()).sum()
    expected = (p * eq.kl_estimate(p.log(), q.log(), estimator)).sum()
    torch.testing.assert_close(expected, exact)


def test_the_end_token_counts_and_nothing_behind_it_does():
    # Row 0 ends at its second token, row 1 is cut at the limit of four; the nines stand behind the end.
    mask = eq.completion_mask(torch.tensor([2, 4]), 4)
    values = torch.tensor([[1.0, 3.0, 9.0, 9.0], [2.0, 2.0, 2.0, 8.0]])
    close(eq.masked_mean(values, mask), 3.0)  # (1 + 3 + 2 + 2 + 2 + 8) / 6
    rewards = eq.token_rewards(torch.zeros(2, 4), torch.tensor([5.0, 7.0]), torch.tensor([2, 4]), 0.1)
    close(rewards, [[0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 7.0]])
    white = eq.whiten(values, mask)
    assert white[0, 2:].tolist() == [0.0, 0.0]
    close(white[mask].mean(), 0.0)
    close(white[mask].std(), 1.0)


def test_missing_end_is_paid_for():
    scores = eq.penalised_scores(torch.tensor([1.0, 1.0]), torch.tensor([True, False]), 0.75)
    close(scores, [1.0, 0.25])


def test_score_is_placed_at_the_last_token():
    kl = torch.tensor([[0.1, 0.2, 0.3], [0.1, 7.0, 7.0]])  # the sevens are padding
    rewards = eq.token_rewards(kl, torch.tensor([2.0, -1.0]), torch.tensor([3, 1]), coefficient=0.5)
    close(rewards, [[-0.05, -0.10, 1.85], [-1.05, 0.0, 0.0]])


def test_advantages_by_hand():
    # Row 0: gamma 0.9, lambda 0.5, so gamma lambda = 0.45.
    #   delta_2 = 1 - 0.3 = 0.7;  delta_1 = 0.9 * 0.3 - 0.2 = 0.07;  delta_0 = 0.9 * 0.2 - 0.1 = 0.08
    #   A_2 = 0.7;  A_1 = 0.07 + 0.45 * 0.7 = 0.385;  A_0 = 0.08 + 0.45 * 0.385 = 0.25325
    # Row 1 has one token: A_0 = 2 - 0.5; the 9s behind it are padding and must not leak in.
    rewards = torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 0.0]])
    values = torch.tensor([[0.1, 0.2, 0.3], [0.5, 9.0, 9.0]])
    mask = eq.completion_mask(torch.tensor([3, 1]), 3)
    advantages, returns = eq.advantages_and_returns(rewards, values, mask, gamma=0.9, lam=0.5)
    close(advantages, [[0.25325, 0.385, 0.7], [1.5, 0.0, 0.0]])
    close(returns, [[0.35325, 0.585, 1.0], [2.0, 0.0, 0.0]])


def test_advantages_are_the_discounted_sum_of_the_deltas():
    """The recursion against the definition: A_t = sum over l of (gamma lambda)^l delta_{t + l}."""
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 3, 7, generator=generator)
    lengths, gamma, lam = torch.tensor([7, 4, 1]), 0.9, 0.8
    advantages, returns = eq.advantages_and_returns(
        rewards, values, eq.completion_mask(lengths, 7), gamma, lam
    )
    for row, length in enumerate(lengths.tolist()):
        v = [*values[row, :length].tolist(), 0.0]
        deltas = [rewards[row, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:]))
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-5)
            assert returns[row, t].item() == pytest.approx(expected + v[t], abs=1e-5)


def test_wider_padding_changes_no_advantage():
    rewards, values = torch.tensor([[0.1, 0.2, 1.0]]), torch.tensor([[0.3, 0.5, 0.2]])
    mask = torch.ones(1, 3, dtype=torch.bool)

    def widened(tensor, fill):
        return torch.nn.functional.pad(tensor, (0, 4), value=fill)

    narrow = eq.advantages_and_returns(rewards, values, mask, 0.9, 0.8)
    wide = eq.advantages_and_returns(
        widened(rewards, 0.0), widened(values, 6.0), widened(mask, False), 0.9, 0.8
    )
    for short, long in zip(narrow, wide, strict=True):
        assert torch.equal(widened(short, 0.0), long)
    whitened = [eq.whiten(found, of) for (found, _), of in ((narrow, mask), (wide, widened(mask, False)))]
    torch.testing.assert_close(widened(whitened[0], 0.0), whitened[1])


def test_lambda_one_gives_the_return_whatever_the_values():
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    _, returns = eq.advantages_and_returns(
        rewards, torch.tensor([[5.0, -3.0, 0.5]]), mask, gamma=1.0, lam=1.0
    )
    close(returns, [[7.0, 6.0, 4.0]])


def test_nothing_is_bootstrapped_after_a_truncated_completion():
    # Cut at the longest length, value 0.8 before the last token: its target is the score alone.
    _, returns = eq.advantages_and_returns(
        torch.tensor([[0.0, 1.0]]), torch.tensor([[0.4, 0.8]]), torch.ones(1, 2, dtype=torch.bool), 1.0, 0.0
    )
    close(returns, [[0.8, 1.0]])


def test_the_value_behind_a_truncated_completion_is_not_looked_at():
    # Row 0 is cut at the limit, row 1 ended one token before it with the same rewards and values: V is 0 after both.
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    values = torch.tensor([[0.6, 0.4, 0.8], [0.4, 0.8, 5.0]])
    mask = eq.completion_mask(torch.tensor([3, 2]), 3)
    advantages, _ = eq.advantages_and_returns(rewards, values, mask, 0.5, 0.5)
    # delta = 1 - 0.8 at the last token, 0.5 * 0.8 - 0.4 before it, which is 0; A = 0.2 and 0.25 * 0.2
    close(advantages[0, 1:], [0.05, 0.2])
    close(advantages[1], [0.05, 0.2, 0.0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.5, 1.0, -1.2, True),  # a gain beyond the range is not rewarded
        (1.5, -1.0, 1.5, False),  # a loss beyond it counts in full
        (0.5, 1.0, -0.5, False),
        (0.5, -1.0, 0.8, True),
        (1.1, 2.0, -2.2, False),
    ],
)
def test_clipped_policy_loss(ratio, advantage, loss, clipped):
    old = torch.tensor([-1.0])
    losses, was_clipped = eq.clipped_policy_loss(
        old + math.log(ratio), old, torch.tensor([advantage]), clip=0.2
    )
    close(losses, [loss])
    assert was_clipped.tolist() == [clipped]


def test_policy_gradient_stops_where_clipped():
    logprobs = torch.tensor([math.log(1.5), math.log(1.1)], requires_grad=True)
    losses, _ = eq.clipped_policy_loss(logprobs, torch.zeros(2), torch.ones(2), clip=0.2)
    losses.sum().backward()
    close(logprobs.grad, [0.0, -1.1])  # d(-e^x)/dx = -e^x


@pytest.mark.parametrize(
    ("value", "old", "target", "loss"),
    [
        (0.1, 0.0, 1.0, 0.405),  # within the range: (0.1 - 1)^2 / 2
        (0.9, 0.0, 1.0, 0.32),  # held at 0.2: (0.2 - 1)^2 / 2, more than (0.9 - 1)^2 / 2
        (-0.5, 0.0, 1.0, 1.125),  # moved away: (-0.5 - 1)^2 / 2, more than the held (-0.2 - 1)^2 / 2
    ],
)
def test_clipped_value_loss(value, old, target, loss):
    close(
        eq.clipped_value_loss(torch.tensor([value]), torch.tensor([old]), torch.tensor([target]), 0.2), [loss]
    )


def test_value_gradient_stops_where_the_value_is_held():
    values = torch.tensor([0.1, 0.9], requires_grad=True)
    eq.clipped_value_loss(values, torch.zeros(2), torch.ones(2), 0.2).sum().backward()
    close(values.grad, [-0.9, 0.0])  # d(V - R)^2 / 2 / dV = V - R; the held one has none


def test_value_scale():
    mask = torch.tensor([[True, True, False]])
    close(eq.value_scale(torch.tensor([[6.0, -8.0, 99.0]]), mask), math.sqrt(50))
    close(eq.value_scale(torch.tensor([[0.6, -0.8, 99.0]]), mask), 1.0)


def test_adaptive_kl():
    # error (0.11 - 0.1) / 0.1 = 0.1, times 50 / 1000
    assert eq.next_kl_coefficient(0.2, 0.11, 0.1, 50, 1000) == pytest.approx(0.2 * 1.005)
    # far off: the error is held at 0.2 either way
    assert eq.next_kl_coefficient(0.2, 5.0, 0.1, 50, 1000) == pytest.approx(0.2 * 1.01)
    assert eq.next_kl_coefficient(0.2, 0.0, 0.1, 50, 1000) == pytest.approx(0.2 * 0.99)


# Groups


def test_leave_one_out_by_hand():
    # The means of the others: 4, 3.5, 1.5.
    close(eq.leave_one_out(torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0]), 3), [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0])
    close(eq.leave_one_out(torch.tensor([1.0, 0.0, 3.0, 7.0]), 2), [1.0, -1.0, -4.0, 4.0])


def test_group_relative_by_hand():
    # The mean is 3, the unbiased variance (4 + 1 + 9) / 2 = 7.
    rewards = torch.tensor([1.0, 2.0, 6.0, -1.0, 0.0, 1.0])
    first, second = math.sqrt(7) + 1e-4, 1 + 1e-4
    expected = [-2 / first, -1 / first, 3 / first, -1 / second, 0.0, 1 / second]
    close(eq.group_relative(rewards, 3, scale=True), expected)
    close(eq.group_relative(rewards, 3, scale=False), [-2.0, -1.0, 3.0, -1.0, 0.0, 1.0])


@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, -7.7, 1e6])
def test_a_group_of_equal_rewards_has_no_advantage(reward):
    """Exactly none: a rounding error of 1e-8 would be scaled up by one over the spread that is added."""
    rewards = torch.tensor([reward] * 7 + [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    for advantages in (
        eq.leave_one_out(rewards, 7),
        eq.group_relative(rewards, 7, scale=True),
        eq.group_relative(rewards, 7, scale=False),
    ):
        assert advantages[:7].tolist() == [0.0] * 7
        assert advantages[10] > 0
        assert (advantages[[7, 8, 9, 11, 12, 13]] < 0).all()
    assert eq.equal_groups(rewards, 7).tolist() == [True, False]


def test_token_weights_by_hand():
    # A mini-batch of rows 0 and 1, with 1 and 3 tokens, whose losses a token are 8 and 2; row 2 is not in it.
    lengths, mini = torch.tensor([1, 3, 4]), torch.tensor([1, 0])
    assert eq.token_weights("dapo", lengths, mini, 8).tolist() == [1, 1, 1]
    close(eq.token_weights("grpo", lengths, mini, 8), [2.0, 2 / 3, 0.5])
    close(eq.token_weights("dr_grpo", lengths, mini, 8), [0.25, 0.25, 0.25])
    losses = torch.tensor([8.0, 2.0, 2.0, 2.0])
    for kind, mean in (
        ("dapo", (8 + 2 + 2 + 2) / 4),
        ("grpo", (8 + (2 + 2 + 2) / 3) / 2),
        ("dr_grpo", (8 + 2 + 2 + 2) / (2 * 8)),
    ):
        each = eq.token_weights(kind, lengths, mini, 8)[[0, 1]].repeat_interleave(torch.tensor([1, 3]))
        close((losses * each).sum() / 4, mean)
