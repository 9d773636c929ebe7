"""Tests of rollouts: which token a random number picks, and that a row's tokens depend only on that row."""

from pathlib import Path
from typing import Any

import torch

from selftrain.sampling import Sample
from selftrain.sampling.hf import draw
from selftrain.sampling.stopping import Stopping
from selftrain.training.ppo.rollout import FromEngine, FromPolicy, noise, seeded
from tests.selftrain.training.ppo.tiny import END, make_tokenizer

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [3], [12, 13, 14], [3, 4, 5, 6], [20, 21], [9, 9, 9]]


def sample(
    model: Any, prompts: list[list[int]], uniforms: torch.Tensor, temperature: float, ends: tuple[int, ...]
) -> list[list[int]]:
    """One completion per prompt, without stop texts."""
    return FromPolicy(model, temperature, Stopping(None, ends))(prompts, uniforms, "")


def test_draw_inverts_the_distribution_function():
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log()  # boundaries at 0.2 and 0.5
    for uniform, token in [(0.0, 0), (0.19, 0), (0.21, 1), (0.49, 1), (0.51, 2), (0.999999, 2)]:
        assert draw(logits, torch.tensor([uniform], dtype=torch.float64), temperature=1.0).item() == token
    # Temperature 0.5 squares the probabilities: 0.04, 0.09, 0.25 of 0.38; boundaries at 0.105 and 0.342.
    for uniform, token in [(0.10, 0), (0.11, 1), (0.34, 1), (0.35, 2)]:
        assert draw(logits, torch.tensor([uniform], dtype=torch.float64), temperature=0.5).item() == token


def test_draw_never_takes_a_token_of_probability_zero():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    for uniform in (0.0, 1 - 1e-12):
        assert draw(logits, torch.tensor([uniform], dtype=torch.float64), temperature=1.0).item() == 1


def test_noise_depends_on_seed_and_step_alone():
    assert torch.equal(noise(1, 2, 4, 5), noise(1, 2, 4, 5))
    assert not torch.equal(noise(1, 2, 4, 5), noise(1, 3, 4, 5))
    assert not torch.equal(noise(1, 2, 4, 5), noise(2, 2, 4, 5))
    assert seeded("a", 12, 3).initial_seed() != seeded("a", 1, 23).initial_seed()


def test_sampled_tokens_are_those_that_the_noise_picks_without_cache_or_padding(tiny):
    uniforms = noise(0, 0, len(PROMPTS), 20)
    completions = sample(tiny, PROMPTS, uniforms, 0.9, (END,))
    lengths = {len(c) for c in completions}
    assert len(lengths) > 2, "rows must end at different times for this test to mean something"
    for row, (prompt, completion) in enumerate(zip(PROMPTS, completions, strict=True)):
        with torch.no_grad():
            logits = tiny(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        assert draw(logits, uniforms[row, : len(completion)], temperature=0.9).tolist() == completion
        assert END not in completion[:-1]
        assert completion[-1] == END or len(completion) == 20


def test_a_rows_tokens_do_not_depend_on_its_batch(tiny):
    uniforms = noise(3, 1, len(PROMPTS), 16)
    whole = sample(tiny, PROMPTS, uniforms, 1.0, (END,))
    shares = [sample(tiny, PROMPTS[r::2], uniforms[r::2], 1.0, (END,)) for r in range(2)]
    assert [shares[i % 2][i // 2] for i in range(len(PROMPTS))] == whole
    assert sample(tiny, PROMPTS[4:5], uniforms[4:5], 1.0, (END,)) == whole[4:5]


def test_frequencies_follow_the_models_probabilities(tiny):
    rows = 4000
    first = torch.tensor([c[0] for c in sample(tiny, [[3]] * rows, noise(5, 0, rows, 1), 1.0, (END,))])
    with torch.no_grad():
        expected = tiny(torch.tensor([[3]])).logits[0, -1].softmax(-1)
    seen = torch.bincount(first, minlength=24) / rows
    error = 4 * (expected * (1 - expected) / rows).sqrt()  # four standard errors
    assert ((seen - expected).abs() <= error + 1e-6).all()


def test_every_end_token_ends_a_completion(tiny):
    uniforms = noise(1, 0, len(PROMPTS), 20)
    one = sample(tiny, PROMPTS, uniforms, 1.0, (END,))
    other = next(token for row in one for token in row[2:-2] if token != END)
    both = sample(tiny, PROMPTS, uniforms, 1.0, (END, other))
    assert both != one
    for ours, theirs in zip(both, one, strict=True):
        assert ours == theirs[: len(ours)]
        assert not {END, other} & set(ours[:-1])
        assert len(ours) == len(theirs) or ours[-1] == other


def test_a_stop_text_ends_a_rollout(tiny):
    """Without it the same draws give the same tokens, and more."""
    tokenizer = make_tokenizer()
    stopping = Stopping(tokenizer, (END,))
    uniforms = noise(0, 0, len(PROMPTS), 20)
    free = sample(tiny, PROMPTS, uniforms, 0.9, (END,))
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in free]
    stops = [(text[3:5],) if len(text) > 8 else () for text in texts]
    assert any(stops)
    assert not all(stops)
    found = FromPolicy(tiny, 0.9, stopping)(PROMPTS, uniforms, "1/0/0", stops)
    for row, whole, text, stop in zip(found, free, texts, stops, strict=True):
        assert row == whole[: len(row)]
        assert len(row) == (text.index(stop[0]) + 2 if stop else len(whole))


class Engine:
    """Stands for a sampling engine, and keeps the seeds and names that it is handed."""

    def __init__(self) -> None:
        self.asked = []

    def reload(self, folder):
        pass

    def sample(self, prompts, n, seed, names, stops):
        self.asked.append((seed, tuple(names), stops))
        return [[Sample([5, END], [-1.0, -1.0], True)] for _ in prompts]


def test_an_engines_rollouts_take_the_runs_seed(tmp_path: Path):
    engine = Engine()
    rollouts = FromEngine(lambda _: engine, lambda *_: None, tmp_path, True, lambda: None)
    rollouts.refresh(lambda: iter(()))
    for place in ("1/0/0", "2/0/0", "1/1/0", "1/0/1", "1/0/0"):
        assert rollouts([[3], [4]], noise(0, 0, 2, 4), place, [("x",), ()]) == [[5, END]] * 2
    seeds, names, stops = zip(*engine.asked, strict=True)
    assert len(set(seeds)) == 4, "run, step and rank each change the seed"
    assert seeds[0] == seeds[4]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len({name for pair in names for name in pair}) == 8
    assert set(stops[0]) == {("x",), ()}
