"""The trainer with a real function as the reward: it learns, its parts fit together, it goes on where it stopped."""

import dataclasses

import pytest
import torch
from accelerate import Accelerator

from selftrain.config import PPOConfig
from selftrain.errors import RunError, UsageError
from selftrain.ppo import equations
from selftrain.ppo.trainer import Trainer, accumulation_steps, check_batches, rows_of_step
from tests.selftrain.ppo.tiny import END, make_model

TOKEN, WIDTH = 7, 12
PROMPTS = [[i, j] for i in range(2, 10) for j in range(2, 10)]


def share_of_token(prompts, completions):
    """[rows] share of TOKEN in each completion; at best 1."""
    return torch.tensor([sum(t == TOKEN for t in row) / len(row) for row in completions])


def config(**changes):
    small = PPOConfig(
        steps=3,
        rollout_batch=32,
        mini_batch=16,
        micro_batch=16,
        learning_rate=3e-3,
        kl_coefficient=0.0,
        missing_end_penalty=0.0,
    )
    return PPOConfig.model_validate({**small.model_dump(), **changes})


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_trainer(settings, seed=1, score=share_of_token, **options):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation_steps(settings, 1))
    return Trainer(
        settings, seed, WIDTH, make_model(), make_model(), score, PROMPTS, END, accelerator, **options
    )


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.module.parameters()])


def test_learns_a_known_best_answer():
    trainer = make_trainer(config(steps=40, rollout_batch=64, mini_batch=32, micro_batch=32))
    curve = trainer.run().curve
    assert curve[0]["score"] < 0.05
    assert curve[-1]["score"] > 0.9
    assert curve[-1]["kl"] > 1
    assert curve[-1]["entropy"] < 0.2 < 1.5 < curve[0]["entropy"]
    assert [row["step"] for row in curve] == list(range(1, 41))


def test_a_large_kl_coefficient_holds_the_policy_at_the_reference():
    settings = {"steps": 30, "rollout_batch": 128, "mini_batch": 128, "micro_batch": 128, "epochs": 1}
    kl = {}
    for coefficient in (0.0, 10.0):
        curve = make_trainer(config(**settings, learning_rate=1e-3, kl_coefficient=coefficient)).run().curve
        kl[coefficient] = sum(row["kl"] for row in curve[-5:]) / 5
    assert kl[10.0] < 0.1
    assert kl[0.0] > 5 * kl[10.0]


def test_missing_end_penalty_teaches_to_end():
    settings = config(steps=12, rollout_batch=64, mini_batch=32, micro_batch=32, missing_end_penalty=1.0)
    curve = make_trainer(settings, score=lambda p, c: torch.zeros(len(c))).run().curve
    assert curve[0]["missing_end"] > 0.5
    assert curve[0]["reward"] == pytest.approx(-curve[0]["missing_end"])
    assert curve[-1]["missing_end"] < 0.2


def test_first_ratio_is_one():
    trainer = make_trainer(config())
    trainer.step()  # the policy has left the reference
    experience = trainer.experience()
    for rows in (torch.arange(32), torch.tensor([5, 2, 17])):  # whatever the batch it is computed in
        with torch.no_grad():
            logprobs, values, _ = trainer.model(experience.sequences.take(rows))
        mask = experience.mask[rows]
        torch.testing.assert_close(logprobs, experience.logprobs[rows][mask], rtol=0, atol=2e-6)
        torch.testing.assert_close(values, experience.values[rows][mask], rtol=0, atol=2e-6)


def test_experience_is_what_the_equations_make_of_it():
    settings = config(kl_coefficient=0.3, missing_end_penalty=0.5)
    trainer = make_trainer(settings)
    first = trainer.experience()
    assert first.kl.abs().max() < 1e-5  # the policy still is the reference
    torch.testing.assert_close(first.rewards.sum(1), first.scores - 0.5 * (~first.ended), rtol=0, atol=1e-3)
    trainer.step()
    later = trainer.experience()
    assert later.kl.abs().max() > 1e-3
    penalised = later.scores - 0.5 * (~later.ended)
    last = later.sequences.completions[:, None] - 1
    expected = (-0.3 * later.kl).scatter_add(1, last, penalised[:, None]) * later.mask
    torch.testing.assert_close(later.rewards, expected)
    inside = later.advantages[later.mask]
    assert abs(inside.mean()) < 1e-5
    assert inside.std() == pytest.approx(1, abs=1e-4)
    assert later.advantages[~later.mask].abs().sum() == 0
    assert torch.equal(later.mask.sum(1), later.sequences.completions)


def test_score_sees_exactly_the_rollouts_tokens():
    seen = []

    def score(prompts, completions):
        seen.append((prompts, completions))
        return share_of_token(prompts, completions)

    experience = make_trainer(config(), score=score).experience()
    (prompts, completions) = seen[0]
    rows = [p + c for p, c in zip(prompts, completions, strict=True)]
    assert experience.sequences.ids.tolist() == [
        r + [0] * (experience.sequences.ids.shape[1] - len(r)) for r in rows
    ]
    assert experience.ended.tolist() == [c[-1] == END for c in completions]
    assert any(c[-1] == END for c in completions)
    assert any(c[-1] != END for c in completions)


def test_micro_batches_do_not_change_the_update():
    after = {}
    for micro_batch in (16, 5):
        trainer = make_trainer(
            config(micro_batch=micro_batch)
        )  # one after another: accelerate's state is global
        before = weights(trainer)
        trainer.step()
        after[micro_batch] = weights(trainer)
    assert accumulation_steps(config(micro_batch=5), 1) == 4
    torch.testing.assert_close(after[5], after[16], rtol=0, atol=1e-4)
    assert (after[16] - before).abs().max() > 3e-3


def test_large_returns_do_not_drown_the_policy():
    """With value targets of about 1000 the policy still moves as it does for scores of order 1."""
    settings = config(steps=25, rollout_batch=64, mini_batch=32, micro_batch=32)
    curve = make_trainer(settings, score=lambda p, c: 1000 * share_of_token(p, c)).run().curve
    assert curve[-1]["score"] > 300
    assert all(row["value_loss"] < 1 for row in curve)


def test_adaptive_coefficient_follows_the_kl():
    settings = config(kl_coefficient=0.1, kl_target=1e-4, kl_horizon=100)
    state = make_trainer(settings).run()
    used = [row["kl_coefficient"] for row in state.curve]
    expected = 0.1
    for row, coefficient in zip(state.curve, used, strict=True):
        assert coefficient == expected
        expected = equations.next_kl_coefficient(expected, row["kl"], 1e-4, 32, 100)
    assert used[0] > used[1] < used[2]  # no KL before the first update, then more than the target


def test_rewards_are_whitened_when_asked():
    plain = make_trainer(config()).experience()
    white = make_trainer(config(whiten_rewards=True)).experience()
    assert torch.equal(plain.rewards, white.rewards)
    scaled = equations.whiten(plain.rewards, plain.mask, keep_mean=True)
    _, returns = equations.advantages_and_returns(scaled, plain.values, plain.mask, 1.0, 0.95)
    torch.testing.assert_close(white.returns, returns)


def test_rows_of_step_are_shuffled_passes_over_all_problems():
    rows = [row for step in range(10) for row in rows_of_step(step, 6, 10, seed=1)]
    for start in range(0, 60, 10):
        assert sorted(rows[start : start + 10]) == list(range(10))
    assert rows[:10] != rows[10:20]
    assert rows_of_step(3, 6, 10, seed=1) != rows_of_step(3, 6, 10, seed=2)
    assert sorted(rows_of_step(0, 7, 3, seed=1)[:6]) == [0, 0, 1, 1, 2, 2]


def test_batches_that_do_not_fit_are_refused():
    check_batches(config(), 2)
    with pytest.raises(UsageError, match="rollout_batch 32 is not a multiple of ppo.mini_batch 12"):
        check_batches(config(mini_batch=12), 1)
    with pytest.raises(UsageError, match="mini_batch 16 cannot be spread evenly over 3"):
        check_batches(config(), 3)


def test_a_run_gone_bad_stops():
    trainer = make_trainer(config(), score=lambda p, c: torch.full((len(c),), torch.nan))
    with pytest.raises(RunError, match="diverged at step 1"):
        trainer.run()


def test_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    settings = config(steps=4, checkpoint_steps=2, kl_target=0.01)
    undisturbed = make_trainer(settings)
    expected = undisturbed.run()

    class Killed(Exception):
        pass

    def die_after_three(row):
        if row["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        make_trainer(settings, checkpoints=tmp_path, on_step=die_after_three).run()
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]
    (tmp_path / ".part").mkdir()  # a save that was killed
    (tmp_path / ".part" / "model.safetensors").write_bytes(b"half")

    steps = []
    resumed = make_trainer(settings, checkpoints=tmp_path, on_step=lambda row: steps.append(row["step"]))
    state = resumed.run()
    assert steps == [3, 4]
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert [dataclasses.replace(s, seconds={}) for s in (state, expected)] == [
        dataclasses.replace(expected, seconds={})
    ] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-4"]

    finished = make_trainer(settings, checkpoints=tmp_path)
    assert finished.run().step == 4
    assert torch.equal(weights(finished), weights(undisturbed))
