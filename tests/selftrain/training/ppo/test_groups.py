"""Tests of GRPO and RLOO in the trainer: groups, advantages, no value head, adapters and resuming."""

import dataclasses

import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError

from selftrain.config import LoraConfig, PPOConfig
from selftrain.errors import UsageError
from selftrain.models import lora
from selftrain.training.ppo.experience import rows_of_step, with_means
from selftrain.training.ppo.score import Reward
from selftrain.training.ppo.settings import Models, TrainerSettings, accumulation_steps
from selftrain.training.ppo.trainer import Trainer
from tests.selftrain.training.ppo.tiny import END, Killed, die_after, make_model, reference_logprobs

TOKEN, WIDTH = 7, 12
PROMPTS = [[i, j] for i in range(2, 10) for j in range(2, 10)]
ALGORITHMS = ("grpo", "rloo")


def share_of_token(prompts, completions):
    """[rows] share of TOKEN in each completion; at best 1."""
    return torch.tensor([sum(t == TOKEN for t in row) / len(row) for row in completions])


def config(algorithm="grpo", **changes):
    small = {
        "algorithm": algorithm, "group": 4, "steps": 3, "rollout_batch": 32, "mini_batch": 16, "micro_batch": 16,
        "learning_rate": 3e-3, "kl_coefficient": 0.0, "missing_end_penalty": 0.0,
        "health": {"max_kl": None, "max_clip_fraction": None},
    }  # fmt: skip
    return PPOConfig.model_validate({**small, **changes})


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_completion_without_a_verdict_counts_like_its_group():
    """The mean of all rows would be an advantage where the rest of the group fails."""
    found = [True, True, False, None, False, None, False, False, None, None, None, None]
    assert with_means(found, 4) == [1, 1, 0, 2 / 3, 0, 0, 0, 0, *[1 / 3] * 4]
    assert with_means(found[:5], 1) == [1, 1, 0, 0.5, 0]


def test_the_sandboxs_gaps_give_no_advantage():
    def execute(problems, completions):
        return [None if at % 4 == 1 else at < 4 for at in range(len(completions))]

    settings = config(execution_weight=1.0)
    experience = make_trainer(settings, execute=execute).experience()
    assert experience.passed.tolist() == [1.0] * 4 + [0.0] * 28
    assert experience.advantages.eq(0).all()


def make_trainer(
    settings, seed=1, score=share_of_token, execute=None, checkpoints=None, models=None, **options
):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation_steps(settings, 1))
    return Trainer(
        TrainerSettings(settings, seed, WIDTH, (END,), checkpoints),
        models or Models(make_model(), make_model()),
        Reward(score, execute),
        PROMPTS,
        accelerator,
        **options,
    )


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.module.parameters()])


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [("grpo", {}), ("grpo", {"scale_rewards": "none", "loss_type": "dr_grpo"}), ("rloo", {})],
    ids=["grpo", "dr-grpo", "rloo"],
)
def test_learns_a_known_best_answer(algorithm, changes):
    """At best every token is TOKEN: a score of 1."""
    settings = config(algorithm, steps=60, rollout_batch=64, mini_batch=32, micro_batch=32, **changes)
    curve = make_trainer(settings).run().curve
    assert curve[0]["score"] < 0.05
    # Sums of floats differ between processors, and so do the paths: far from where one of them ends.
    assert sum(row["score"] for row in curve[-5:]) / 5 > 0.85
    assert curve[-1]["entropy"] < 0.5 < 1.5 < curve[0]["entropy"]


def test_the_completions_of_a_group_are_samples_for_one_prompt():
    trainer = make_trainer(config(group=8))
    experience = trainer.experience()
    ids, lengths = experience.sequences.ids, experience.sequences.lengths
    assert ids[::8, :2].unique(dim=0).shape == (4, 2), "four prompts"
    for group in range(0, 32, 8):
        assert (ids[group : group + 8, :2] == ids[group, :2]).all()
        completions = [ids[row, 2 : lengths[row]].tolist() for row in range(group, group + 8)]
        assert len({tuple(one) for one in completions}) > 4
    trainer.step()
    prompts = [sample["prompt"] for sample in trainer.state.samples]
    assert len({tuple(prompt) for prompt in prompts}) == 4, "one sample of each prompt is kept to be read"


def test_rows_of_step_repeat_each_problem_for_its_group():
    assert rows_of_step(2, 12, 10, seed=1, group=3) == [
        row for row in rows_of_step(2, 4, 10, seed=1) for _ in range(3)
    ]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_advantages_are_what_the_equations_say(algorithm):
    """Worked out in plain numbers, row by row, from the scores and the KL of each token."""
    settings = config(algorithm, kl_coefficient=0.3, missing_end_penalty=0.5, length_penalty=0.01)
    trainer = make_trainer(settings)
    trainer.step()  # the policy has left the reference
    found = trainer.experience()
    lengths = found.sequences.completions.tolist()
    earned = [
        score - 0.5 * (not ended) - 0.01 * length
        for score, ended, length in zip(found.scores.tolist(), found.ended.tolist(), lengths, strict=True)
    ]
    penalty = [0.3 * sum(row[:length]) for row, length in zip(found.kl.tolist(), lengths, strict=True)]
    assert max(map(abs, penalty)) > 0.01
    assert [earned[row] - penalty[row] for row in range(32)] == pytest.approx(
        found.rewards.sum(1).tolist(), abs=1e-5
    )
    for start in range(0, 32, 4):
        rows = range(start, start + 4)
        mean = sum(earned[row] for row in rows) / 4
        spread = (sum((earned[row] - mean) ** 2 for row in rows) / 3) ** 0.5
        for row in rows:
            others = [other for other in rows if other != row]
            apart = penalty[row] - sum(penalty[other] for other in others) / 3
            if algorithm == "rloo":
                expected = earned[row] - sum(earned[other] for other in others) / 3 - apart
            else:
                expected = (earned[row] - mean) / (spread + 1e-4) - apart
            tokens = found.advantages[row, : lengths[row]].tolist()
            assert tokens == pytest.approx([expected] * lengths[row], abs=1e-4)
            assert not found.advantages[row, lengths[row] :].any()
    assert found.values is None
    assert found.returns is None


def test_with_the_exact_kl_a_token_also_pays_its_own_log_ratio():
    models = [Models(make_model(), make_model(5)) for _ in range(2)]
    k1, exact = (
        make_trainer(config("rloo", kl_coefficient=1.0, kl_estimator=name), models=one).experience()
        for name, one in zip(("k1", "exact"), models, strict=True)
    )
    totals = exact.kl.sum(1).view(-1, 4)
    apart = (totals - (totals.sum(1, keepdim=True) - totals) / 3).flatten()
    scores = exact.scores.view(-1, 4)
    relative = (scores - (scores.sum(1, keepdim=True) - scores) / 3).flatten()
    expected = ((relative - apart)[:, None] - (k1.kl - exact.kl)) * exact.mask
    torch.testing.assert_close(exact.advantages, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equal_rewards_leave_the_policy_as_it_is(algorithm):
    """All programs of a prompt fail, or all pass: 0 / 0 is no advantage."""
    trainer = make_trainer(config(algorithm, steps=1), score=lambda p, c: torch.full((len(c),), 0.1))
    before = weights(trainer)
    row = trainer.run().curve[0]
    assert row["frac_reward_zero_std"] == 1
    assert row["reward_std"] == pytest.approx(0, abs=1e-6)
    assert row["policy_loss"] == 0
    assert torch.equal(weights(trainer), before)


def test_a_group_that_earned_the_same_feels_the_kl_no_more_than_others():
    """The noise of the KL is not scaled up to the size of an advantage."""
    models = Models(make_model(), make_model(0, spread=0.31))
    settings = config(kl_coefficient=1e-3)
    trainer = make_trainer(settings, score=lambda p, c: torch.zeros(len(c)), models=models)
    found = trainer.experience()
    assert 0 < found.advantages.abs().max() < 0.1


def test_there_is_no_value_head_and_no_figure_of_it():
    trainer = make_trainer(config())
    trainer.step()
    row = trainer.state.curve[0]
    assert set(row) == {
        "step", "reward", "reward_std", "frac_reward_zero_std", "score", "kl", "entropy", "policy_loss",
        "clip_fraction", "kl_coefficient", "tokens", "missing_end",
    }  # fmt: skip
    names = {name for name, _ in trainer.module.named_parameters()}
    assert names == {f"policy.{name}" for name, _ in make_model().named_parameters()}


def test_groups_of_which_some_are_equal_are_counted():
    def score(prompts, completions):
        return torch.tensor([float(p[0] % 2) * len(c) for p, c in zip(prompts, completions, strict=True)])

    trainer = make_trainer(config(rollout_batch=64, mini_batch=16), score=score)
    experience = trainer.experience()
    groups = experience.scores.view(-1, 4)
    equal = [len(set(group.tolist())) == 1 for group in groups]
    assert 0 < sum(equal) < 16
    trainer.step()
    row = trainer.state.curve[0]
    assert row["frac_reward_zero_std"] == sum(equal) / 16
    assert row["reward_std"] == pytest.approx(groups.std(1).mean().item(), rel=1e-5)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_micro_batches_do_not_change_the_update(loss_type):
    after = {}
    for micro_batch in (16, 5):
        # One after another: accelerate's state is global.
        trainer = make_trainer(config(micro_batch=micro_batch, loss_type=loss_type))
        before = weights(trainer)
        trainer.step()
        after[micro_batch] = weights(trainer)
    torch.testing.assert_close(after[5], after[16], rtol=0, atol=1e-4)
    assert (after[16] - before).abs().max() > 3e-3


def test_loss_types_give_the_gradients_of_their_means():
    """The first step's loss is minus the mean of the advantages, by the means' own definition."""
    for loss_type in ("dapo", "grpo", "dr_grpo"):
        settings = config(loss_type=loss_type, epochs=1, mini_batch=32, micro_batch=8, rollout_batch=32)
        trainer = make_trainer(settings)
        found = trainer.experience()
        lengths = found.sequences.completions
        sums = found.advantages.sum(1)
        mean = {
            "dapo": sums.sum() / lengths.sum(),
            "grpo": (sums / lengths).mean(),
            "dr_grpo": sums.sum() / (32 * WIDTH),
        }[loss_type]
        assert trainer.update(found)["policy_loss"] == pytest.approx(-mean.item(), abs=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, algorithm):
    settings = config(algorithm, steps=4, checkpoint_steps=2, kl_target=0.01)
    undisturbed = make_trainer(settings)
    expected = undisturbed.run()

    with pytest.raises(Killed):
        make_trainer(settings, checkpoints=tmp_path, on_step=die_after(3)).run()
    resumed = make_trainer(settings, checkpoints=tmp_path)
    state = resumed.run()
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert dataclasses.replace(state, seconds={}) == dataclasses.replace(expected, seconds={})


def test_a_checkpoint_with_a_value_head_is_refused(tmp_path):
    make_trainer(config("ppo", steps=1), checkpoints=tmp_path).run()
    with pytest.raises(UsageError, match=r"parameters: value_head.bias had shape \[1\], now None"):
        make_trainer(config("grpo", steps=2), checkpoints=tmp_path).run()


def test_adapters_on_a_policy_that_is_not_the_reference():
    """As with `ppo.start: previous`: without its adapters the policy is the previous one, not the SFT policy."""
    torch.manual_seed(0)
    adapters = lora.add(make_model(3), LoraConfig(rank=4, alpha=8))
    models = Models(adapters.get_base_model(), make_model(), adapters=adapters)
    trainer = make_trainer(config(steps=2), models=models)
    trainer.run()
    experience = trainer.experience()
    with torch.no_grad():
        expected = reference_logprobs(make_model(), experience.sequences, 1.0)
    found = (experience.logprobs - experience.kl)[experience.mask]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert trainer.state.curve[0]["kl"] > 0.1, "away from the reference from the first step on"


def test_probes_sample_one_completion_of_each_problem():
    asked = []

    def execute(problems, completions):
        asked.append(list(problems))
        return [True] * len(completions)

    settings = config(steps=2, probe=6, probe_steps=1, execution_weight=0.5)
    trainer = make_trainer(settings, execute=execute, probe_prompts=PROMPTS[:6])
    state = trainer.run()
    assert [row["problems"] for row in state.probes] == [6, 6, 6]
    probe, step = list(range(64, 70)), asked[1]
    assert [asked[0], asked[2], asked[4]] == [probe] * 3
    assert step == [row for row in step[::4] for _ in range(4)]


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="rollout_batch 32 is not a multiple of group 5"):
        config(group=5)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        config(group=1)
    assert PPOConfig(rollout_batch=36, group=8).per_prompt == 1, "algorithm ppo has no groups"
