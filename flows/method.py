"""The order of the method's stages: a run carries them out, a dry run prints their keys."""

from selftrain.champion.promotion import CHAMPION
from selftrain.config import ModelConfig, RunConfig
from selftrain.errors import UsageError
from selftrain.plan.estimate import check_batches
from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tasks.run import Run, Step
from tasks.stages import evaluate, execute, mine, ppo, prepare, report, sample, sft, train_reward
from tasks.suitable import check_models


def method(run: Run, champion: ArtifactRef | None = None) -> ArtifactRef:
    """Carry out the stages of `run` in order; returns the report. `champion`: another run's reranker to evaluate as well."""

    def pool(
        generator: ArtifactRef, name: str, evaluation: bool = False, again: int = 0
    ) -> tuple[ArtifactRef, ArtifactRef]:
        candidates = sample(run, problems, generator, name, evaluation, again)
        return candidates, execute(run, problems, candidates, name, evaluation)

    if not isinstance(run, Outline):  # a plan warns instead, beside all else that it finds
        for line in check_batches(run.config):
            raise UsageError(line)
    check_models(run)
    problems = prepare(run)
    generator = sft(run, problems)
    mined = {"sft": pool(generator, "sft")}
    pairs = mine(run, problems, mined, round=1)
    policies: dict[str, ArtifactRef] = {"sft": generator}
    rerankers: dict[str, ArtifactRef] = {}
    reranker = policy = None
    needed = run.config.policy_rounds
    for round in range(1, run.config.rounds + 1):
        reranker = rerankers[f"rm-{round}"] = train_reward(run, generator, pairs, round, before=reranker)
        if round in needed:
            executions = mined["sft"][1]
            policy = ppo(run, problems, generator, reranker, round, policy, executions)
            policies[f"ppo-{round}"] = policy
        if round < run.config.rounds:
            if run.config.mine.pools == "resampled":
                mined[f"sft-{round + 1}"] = pool(generator, f"sft-{round + 1}", again=round)
            elif run.config.mine.pools != "sft":
                mined[f"ppo-{round}"] = pool(policies[f"ppo-{round}"], f"ppo-{round}")
            pairs = mine(run, problems, mined, round + 1, earlier=(pairs, reranker))
    evaluated = [name for name in policies if name in (run.config.evaluate.pools or policies)]
    pools = {name: pool(policies[name], name, evaluation=True) for name in evaluated}
    if champion is not None:
        rerankers = {CHAMPION: champion} | rerankers
    return report(run, problems, pools, pairs, evaluate(run, problems, pools, rerankers))


class Outline(Run):
    """A run that only computes keys and the graph of stages, and does not read the store."""

    def is_there(self, ref: ArtifactRef) -> bool:
        """Always False: the store is not read."""
        return False


def graph(config: RunConfig) -> list[Step]:
    """The stages of a run of `config`, in order, for `selftrain plan`. Opens no sandbox and reads no problems or weights.

    The keys are distinct but are not those of a real run: they lack the toolchain and the digests of problems and weights.
    """
    # A placeholder for any model, large enough to pass `check_models`.
    model = ModelConfig(max_tokens=10**9, layers=10**9)
    reward = config.reward.model_copy(update={"base": None, "base_revision": None})
    evaluation = config.evaluate.model_copy(update={"reward_models": {}})
    config = config.model_copy(update={"model": model, "reward": reward, "evaluate": evaluation})
    run = Outline(config, Store(config.store), toolchain={"": ""}, content={"": ""})
    method(run)
    return list(run.steps.values())
