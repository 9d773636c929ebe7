"""Writes the result of a PPO run: the policy as an ordinary checkpoint, and a file of readable samples."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.launch.launch import Child
from selftrain.models import lora
from selftrain.models.models import decode_completion, load_generator
from selftrain.stages.ppo import PPOSlice
from selftrain.store.checkpoints import FOLDER, WHOLE
from selftrain.training.ppo.state import State, best_step


class Export:
    """Writes the policy as an ordinary checkpoint: the last policy, or the best one if `ppo.keep_best` is set.

    main  whether this is rank 0
    """

    def __init__(self, child: Child, config: PPOSlice, policy: Any, tokenizer: Any, main: bool) -> None:
        self.child, self.settings, self.main = child, config.ppo, main
        self.policy, self.tokenizer = policy, tokenizer

    def save(self, weights: Mapping[str, Any], folder: Path) -> None:
        """Write a checkpoint of `weights` (see `Trainer.policy_weights`) with adapters merged, and the tokenizer."""
        if self.settings.lora:
            named = {lora.ROOT + name: value for name, value in weights.items()}
            inputs = self.child.inputs
            base = load_generator(inputs.get("start", inputs["generator"]))
            lora.merged(base, self.settings.lora, named).save_pretrained(folder)
        else:
            self.policy.save_pretrained(folder, state_dict=dict(weights))
        self.tokenizer.save_pretrained(folder)

    def keep(self, step: int, weights: Mapping[str, Any]) -> None:
        """Store `weights` of step `step` in place of the best so far. Called by every rank; only rank 0 writes."""
        if not self.main:
            return
        part, best = self.child.private / "best.part", self._best(step)
        best.parent.mkdir(parents=True, exist_ok=True)
        for old in (part, *best.parent.glob("best-*")):
            shutil.rmtree(old, ignore_errors=True)
        self.save(weights, part)
        (part / WHOLE).touch()
        part.rename(best)

    def write(self, state: State, weights: Mapping[str, Any]) -> dict[str, int]:
        """Write the result into the child's folder; returns {"step_kept": step} if `ppo.keep_best` is set, else {}."""
        best = best_step(state.probes) if self.settings.keep_best else None
        if best is not None and self._best(best).is_dir():
            without = shutil.ignore_patterns(WHOLE)
            shutil.copytree(self._best(best), self.child.folder, dirs_exist_ok=True, ignore=without)
            return {"step_kept": best}
        self.save(weights, self.child.folder)
        return {} if best is None else {"step_kept": state.step}

    def _best(self, step: int) -> Path:
        """The folder of the best policy, beside the checkpoints: another machine that resumes from these needs it too."""
        return self.child.private / FOLDER / f"best-{step}"


def write_samples(state: State, tokenizer: Any, ends: Sequence[int], folder: Path) -> None:
    """Write `state.samples` as text into samples.json. The field `ended` says whether an end token or a stop text, which the
    completion then still has, ended it."""
    rows = [
        {
            **row,
            "prompt": tokenizer.decode(row["prompt"]),
            "completion": decode_completion(tokenizer, row["completion"], ends),
        }
        for row in state.samples
    ]
    (folder / "samples.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))
