"""Tests of the PPO trainer with a simple function as the reward: it learns, its parts agree, and it resumes exactly."""

import dataclasses
import json

import pytest
import torch
from accelerate import Accelerator

from selftrain.config import HealthConfig, LoraConfig, PPOConfig
from selftrain.errors import SandboxFailed, UsageError
from selftrain.models import lora
from selftrain.training.ppo import equations, health
from selftrain.training.ppo.experience import rows_of_step
from selftrain.training.ppo.score import Reward
from selftrain.training.ppo.settings import Models, TrainerSettings, accumulation_steps, check_batches
from selftrain.training.ppo.train import _plugin
from selftrain.training.ppo.trainer import Trainer
from tests.selftrain.training.ppo.tiny import (
    END,
    Killed,
    die_after,
    make_model,
    make_tokenizer,
    reference_logprobs,
)

TOKEN, WIDTH = 7, 12
UNBOUNDED = {"max_kl": None, "max_clip_fraction": None}
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
        health=UNBOUNDED,
    )
    return PPOConfig.model_validate({**small.model_dump(), **changes})


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_trainer(
    settings, seed=1, score=share_of_token, execute=None, checkpoints=None, keep=1, models=None, stops=(),
    **options,
):  # fmt: skip
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation_steps(settings, 1))
    return Trainer(
        TrainerSettings(settings, seed, WIDTH, (END,), checkpoints, keep, make_tokenizer(), stops),
        models or Models(make_model(), make_model()),
        Reward(score, execute),
        PROMPTS,
        accelerator,
        **options,
    )


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.module.parameters()])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_learns_a_known_best_answer(seed):
    """At best every token is TOKEN: a score of 1."""
    settings = config(steps=60, rollout_batch=64, mini_batch=32, micro_batch=32)
    curve = make_trainer(settings, seed).run().curve
    assert curve[0]["score"] < 0.05
    # Sums of floats differ between processors, and so do the paths: far from where one of them ends.
    assert sum(row["score"] for row in curve[-5:]) / 5 > 0.85
    assert curve[-1]["kl"] > 1
    assert curve[-1]["entropy"] < 0.5 < 1.5 < curve[0]["entropy"]
    assert [row["step"] for row in curve] == list(range(1, 61))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_large_kl_coefficient_holds_the_policy_at_the_reference(seed):
    """The same settings learn the task without it."""
    settings = {"steps": 30, "rollout_batch": 256, "mini_batch": 256, "micro_batch": 256, "epochs": 1}
    curves = {}
    for name, coefficient, estimator in (("free", 0.0, "k1"), ("k1", 10.0, "k1"), ("exact", 10.0, "exact")):
        models = Models(make_model(0, 64, 0.1), make_model(0, 64, 0.1))
        changes = {"learning_rate": 3e-4, "kl_coefficient": coefficient, "kl_estimator": estimator}
        curves[name] = make_trainer(config(**settings, **changes), seed, models=models).run().curve
    mean = {name: sum(row["kl"] for row in curve) / 30 for name, curve in curves.items()}
    assert mean["k1"] < 0.02
    assert mean["exact"] < 0.02
    assert mean["free"] > 0.5
    assert curves["free"][-1]["score"] > 0.5 > 0.1 > curves["k1"][-1]["score"]


def test_the_exact_kl_has_the_gradient_of_k1_with_less_noise():
    """What a later token costs is its expectation: the same in the mean."""
    changed = {"kl_coefficient": 1.0, "gae_lambda": 1.0, "rollout_batch": 2048, "mini_batch": 2048}
    found = {}
    for estimator in ("k1", "exact"):
        trainer = make_trainer(
            config(**changed, kl_estimator=estimator),
            score=lambda p, c: torch.zeros(len(c)),
            models=Models(make_model(), make_model(5)),
        )
        experience = trainer.experience()
        found[estimator] = experience.kl[experience.mask]
    error = found["k1"].std() / len(found["k1"]) ** 0.5
    assert abs(found["k1"].mean() - found["exact"].mean()) < 4 * error
    assert found["exact"].min() >= 0 > found["k1"].min()
    assert found["exact"].std() < 0.7 * found["k1"].std()


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


def test_a_stop_text_ends_a_completion_as_an_end_token_does():
    """The score reads the text before it and an end token, and no penalty for a missing end is paid."""
    settings = config(missing_end_penalty=8.0, rollout_batch=64, mini_batch=64, micro_batch=64)
    read = []

    def score(prompts, completions):
        read.extend(completions)
        return torch.zeros(len(completions))

    stop = chr(ord("a") + TOKEN - 2)  # token 2 is the letter a
    trainer = make_trainer(settings, score=score, stops=[(stop,)] * len(PROMPTS))
    found = trainer.experience()
    prompts, lengths = found.sequences.prompts.tolist(), found.sequences.lengths.tolist()
    rows = [ids[p:n] for ids, p, n in zip(found.sequences.ids.tolist(), prompts, lengths, strict=True)]
    kinds = {"stop": 0, "end": 0, "length": 0}
    for row, seen, ended, reward in zip(
        rows, read, found.ended.tolist(), found.rewards.sum(1).tolist(), strict=True
    ):
        kind = "stop" if row[-1] == TOKEN else "end" if row[-1] == END else "length"
        kinds[kind] += 1
        assert TOKEN not in row[:-1], "no token behind the stop text"
        assert seen == ([*row[:-1], END] if kind == "stop" else row)
        assert ended == (kind != "length")
        assert kind == "length" or len(row) <= WIDTH
        assert reward == (-8.0 if kind == "length" else 0.0)
    assert kinds["stop"] > 5, kinds
    assert kinds["length"] > 5, kinds


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


def test_a_deepspeed_file_decides_no_batch(tmp_path):
    """Without the number of micro batches in its file, accelerate makes an optimizer step for each of them."""
    for number, given in enumerate(({}, {"gradient_accumulation_steps": "auto"})):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({"zero_optimization": {"stage": 2}, **given}))
        found = _plugin(
            config(mini_batch=16, micro_batch=3, max_grad_norm=0.5), str(file), 2
        ).deepspeed_config
        assert found["gradient_accumulation_steps"] == 3  # of 8 rows in each process: 3, 3 and 2
        assert found["train_micro_batch_size_per_gpu"] == 3
        assert found["gradient_clipping"] == 0.5


def test_a_run_gone_bad_stops():
    trainer = make_trainer(config(), score=lambda p, c: torch.full((len(c),), torch.nan))
    with pytest.raises(UsageError, match=r"diverged at step 1: .*score nan.*at learning rate 0\.003"):
        trainer.run()


def test_infinite_gradients_stop_a_run_before_they_are_in_the_weights():
    trainer = make_trainer(config())
    trainer.module.value_head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(UsageError, match=r"diverged at step 1: grad_norm (nan|inf); at learning rate 0\.003"):
        trainer.run()
    assert torch.isfinite(weights(trainer)).all()


def test_weights_that_are_not_finite_after_the_last_step_are_not_kept(tmp_path):
    trainer = make_trainer(config(steps=1, learning_rate=1e38, mini_batch=32, epochs=1), checkpoints=tmp_path)
    with pytest.raises(UsageError, match="diverged at step 1: weights nan"):
        trainer.run()
    assert not list(tmp_path.glob("step-*"))


def test_a_probe_of_one_problem_has_no_spread():
    trainer = make_trainer(
        config(steps=1, probe=1), execute=lambda p, c: [True] * len(c), probe_prompts=PROMPTS[:1]
    )
    assert [row["score_std"] for row in trainer.run().probes] == [0.0, 0.0]


def test_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    settings = config(steps=4, checkpoint_steps=2, kl_target=0.01)
    undisturbed = make_trainer(settings)
    expected = undisturbed.run()

    with pytest.raises(Killed):
        make_trainer(settings, checkpoints=tmp_path, on_step=die_after(3)).run()
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


# What a completion earns


def test_execution_is_mixed_into_the_reward_and_a_sandbox_failure_is_neutral():
    def execute(problems, completions):
        found = [completion[0] % 2 == 0 for completion in completions]
        return [None, *found[1:]]

    settings = config(execution_weight=0.25, length_penalty=0.01, score_clip=0.05, missing_end_penalty=0.5)
    experience = make_trainer(settings, execute=execute).experience()
    sequences = experience.sequences
    first = sequences.ids.gather(1, sequences.prompts[:, None]).squeeze(1)
    passed = (first % 2 == 0).float()
    passed[0] = passed[1:].mean()
    torch.testing.assert_close(experience.passed, passed)
    earned = (
        0.75 * experience.scores.clamp(-0.05, 0.05)
        + 0.25 * passed
        - 0.01 * sequences.completions
        - 0.5 * ~experience.ended
    )
    assert experience.scores.max() > 0.05
    torch.testing.assert_close(experience.rewards.sum(1), earned, rtol=0, atol=1e-4)


def test_a_step_that_the_sandbox_cannot_judge_fails():
    trainer = make_trainer(config(execution_weight=1.0), execute=lambda p, c: [None] * len(c))
    with pytest.raises(SandboxFailed, match="judged none of the 32 completions"):
        trainer.step()


# Health


PROBE = {"problems": 25, "score": 1.0, "score_std": 0.5, "pass_rate": 0.2}


@pytest.mark.parametrize(
    ("now", "gap"),
    [
        ({"score": 1.0, "pass_rate": 0.2}, 0.0),
        ({"score": 2.0, "pass_rate": 0.2}, 2.0),
        ({"score": 2.0, "pass_rate": 1.0}, 0.0),  # sqrt(0.2 * 0.8) = 0.4, so the pass rate rose by 2 too
        ({"score": 1.0, "pass_rate": 0.0}, 0.5),
    ],
)
def test_hacking_gap_by_hand(now: dict[str, float], gap: float):
    assert health.hacking_gap(PROBE, now) == pytest.approx(gap)


def test_hacking_gap_of_a_probe_that_all_fail_is_finite():
    first = {"problems": 25, "score": 0.0, "score_std": 1.0, "pass_rate": 0.0}
    now = {"score": 0.0, "pass_rate": 0.04}  # one more passes: 0.04 / sqrt(0.04 * 0.96)
    assert health.hacking_gap(first, now) == pytest.approx(-0.04 / (0.04 * 0.96) ** 0.5)


@pytest.mark.parametrize(
    ("bounds", "row", "message"),
    [
        ({"max_kl": 0.5}, {"kl": 0.6}, "kl 0.6, expected at most 0.5"),
        ({"min_entropy": 0.1}, {"entropy": 0.01}, "entropy 0.01, expected at least 0.1"),
        ({"max_clip_fraction": 0.3}, {"clip_fraction": 0.4}, "clip_fraction 0.4, expected at most 0.3"),
        ({"max_hacking_gap": 1.0}, {}, "hacking_gap 2, expected at most 1"),
        ({}, {"reward": float("nan")}, "reward nan"),
    ],
)
def test_a_signal_beyond_its_bound_ends_the_run(bounds: dict, row: dict, message: str):
    probes = [{"hacking_gap": 0.0}, {"hacking_gap": 2.0}]
    with pytest.raises(UsageError, match=f"diverged at step 7: {message}"):
        health.check(7, {"kl": 0.0, "entropy": 1.0} | row, probes, HealthConfig(**bounds), 1e-3)


def test_signals_within_their_bounds_do_not():
    health.check(7, {"kl": 0.1, "entropy": 1.0, "clip_fraction": 0.1}, [], HealthConfig(), 1e-3)
    loose = HealthConfig(max_kl=None, max_clip_fraction=None)
    health.check(7, {"kl": 9.0, "entropy": 0.0, "clip_fraction": 1.0}, [], loose, 1e-3)


def test_probes_are_sampled_alike_and_see_the_gap():
    asked = []

    def execute(problems, completions):
        asked.append((list(problems), completions))
        return [False] * len(completions)

    settings = config(steps=4, probe=16, probe_steps=2)
    trainer = make_trainer(settings, execute=execute, probe_prompts=PROMPTS[:16])
    state = trainer.run()
    assert [row["step"] for row in state.probes] == [0, 2, 4]
    assert all(problems == list(range(64, 80)) for problems, _ in asked), (
        "numbered behind the training problems"
    )
    first, last = state.probes[0], state.probes[-1]
    assert first["hacking_gap"] == 0
    assert last["hacking_gap"] == pytest.approx((last["score"] - first["score"]) / first["score_std"])
    assert asked[0][1] != asked[2][1], "the policy has changed"


# Adapters, a value model of its own, recomputed activations


def test_with_adapters_the_reference_is_the_policy_without_them():
    settings = config(steps=2)
    torch.manual_seed(0)
    adapters = lora.add(make_model(), LoraConfig(rank=4, alpha=8))
    before = make_model().state_dict()
    trainer = make_trainer(settings, models=Models(adapters.get_base_model(), adapters=adapters))
    trainer.run()
    experience = trainer.experience()
    with torch.no_grad():
        expected = reference_logprobs(make_model(), experience.sequences, 1.0)
    found = (experience.logprobs - experience.kl)[experience.mask]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert experience.kl.abs().max() > 1e-3
    named = {lora.ROOT + name: value for name, value in trainer.policy_weights().items()}
    merged = lora.merged(make_model(), LoraConfig(rank=4, alpha=8), named)
    assert set(merged.state_dict()) == set(before)
    with torch.no_grad():
        logprobs = reference_logprobs(merged.eval(), experience.sequences, 1.0)
    torch.testing.assert_close(logprobs, experience.logprobs[experience.mask], rtol=0, atol=1e-5)


def test_a_value_model_of_its_own_does_not_move_the_policy():
    settings = config(value_coefficient=1.0)
    trainer = make_trainer(
        settings, models=Models(make_model(), make_model(), value_trunk=make_model().base_model)
    )
    experience = trainer.experience()
    _, value_loss, _ = trainer.losses(experience, torch.arange(32))
    value_loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in trainer.policy.parameters())
    assert trainer.module.value_head.weight.grad.any()


def test_recomputed_activations_change_nothing():
    after = []
    for recompute in (False, True):
        policy = make_model()
        if recompute:
            policy.activation_checkpointing_enable({"use_reentrant": False})
        trainer = make_trainer(config(), models=Models(policy, make_model()))
        assert trainer.policy.training == recompute
        trainer.step()
        after.append(weights(trainer))
    torch.testing.assert_close(after[0], after[1], rtol=0, atol=1e-6)


# Checkpoints that do not fit


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    make_trainer(config(steps=1), checkpoints=tmp_path).run()
    other = Models(make_model(0, 64), make_model(0, 64))
    with pytest.raises(
        UsageError, match=r"step-1: .*parameters: .* had shape \[.*32\], now \[.*64\]; .*delete"
    ):
        make_trainer(config(steps=2), checkpoints=tmp_path, models=other).run()


def test_as_many_checkpoints_stay_as_asked(tmp_path):
    make_trainer(config(steps=4, checkpoint_steps=1), checkpoints=tmp_path, keep=2).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-3", "step-4"]
