"""The stages as functions of a run: each fills its stage's config slice, names its inputs and calls `Run.do`.

This module does not import Prefect, so a dry run calls the same functions without it.
"""

from collections.abc import Mapping

from selftrain.config import SftConfig
from selftrain.errors import UsageError
from selftrain.evaluation.pools import AGREEMENT
from selftrain.models.weights import base_digest
from selftrain.problems.read import checker_languages, content_digest
from selftrain.rerank.reward_model import reward_model_digests
from selftrain.sampling.processor import adds_exactly
from selftrain.stage import ArtifactRef
from selftrain.stages.agree import AGREE, AgreeSlice
from selftrain.stages.evaluate import EVALUATE, EvaluateSlice
from selftrain.stages.execute import EXECUTE, ExecuteSlice, toolchain_of
from selftrain.stages.mine import MINE, MineSlice
from selftrain.stages.ppo import PPO, PPOSlice
from selftrain.stages.prepare import PREPARE, PrepareSlice
from selftrain.stages.report import REPORT, ReportSlice
from selftrain.stages.sample import SAMPLE, SampleSlice
from selftrain.stages.sft import SFT, SftSlice
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from tasks.run import LOGGER, Run, with_defaults
from tasks.sandbox import open_sandbox

FURTHER_SAMPLE = 1_000_000
"""Distance between the seeds of a generator's samples; other runs have seeds closer to this run's."""

Pools = Mapping[str, tuple[ArtifactRef, ArtifactRef]]
"""Name of a pool -> its candidates and its executions."""


def toolchain(run: Run) -> dict[str, str]:
    """Language -> the sandbox's identity for it, for the languages of problems and checkers; read once per run."""
    if not run.toolchain:
        named = dict.fromkeys(
            [*run.config.problems.languages, *sorted(checker_languages(run.config.problems))]
        )
        with open_sandbox(run.config.runtime) as sandbox:
            run.toolchain = {language: toolchain_of(sandbox, language) for language in named}
    return run.toolchain


def prepare(run: Run) -> ArtifactRef:
    """Prepare the run's problems. The key contains a digest of the problem source's content.

    This opens the sandbox, so that a missing sandbox or tool raises before anything is trained.
    """
    tools = toolchain(run)
    problems = run.config.problems
    problems = problems.model_copy(update={"seed": problems.seed + run.config.seed})
    run.content = run.content or content_digest(problems)
    outside = problems.source != "bank"
    config = PrepareSlice(problems=problems, content=run.content, toolchain=tools if outside else None)
    return run.do(PREPARE, "prepare", config, {})


def sft(run: Run, problems: ArtifactRef) -> ArtifactRef:
    """Step A: fine-tune the generator on (prompt, response)."""
    model, settings = run.config.model, run.config.sft
    if not settings.epochs:
        settings = SftConfig(epochs=0)  # no other setting has an effect
    config = SftSlice(seed=run.config.seed, model=model, base_digest=base_digest(model), sft=settings)
    return run.do(SFT, "sft", config, {"problems": problems})


def sample(
    run: Run,
    problems: ArtifactRef,
    generator: ArtifactRef,
    pool: str,
    evaluation: bool = False,
    again: int = 0,
) -> ArtifactRef:
    """Step D, first part: sample candidates for the rl split; if `evaluation`, for validation and test, also greedy ones.

    `again`: number of earlier samples of this generator; if there are any, `mine.resample_temperature` applies.
    """
    settings = run.config.sample
    if again and run.config.mine.resample_temperature is not None:
        settings = settings.model_copy(update={"temperature": run.config.mine.resample_temperature})
    if settings.engine == "ctranslate2" and settings.compute_type == "int8" and not adds_exactly():
        LOGGER.warning(
            "sample.compute_type: int8 would give wrong log-probabilities on this processor, which has no VNNI instructions; "
            "%s is sampled in float32, and its key says so",
            pool,
        )
        settings = settings.model_copy(update={"compute_type": "float32"})
    if settings.served_model is not None:
        name = settings.served_model.replace("{pool}", "sft" if again else pool)
        if not again and pool != "sft" and name == settings.served_model:
            raise UsageError(
                f"sample.served_model {name} is one model, and pool {pool} is of another policy than the first pool: name it with "
                f"{{pool}}, e.g. {name}-{{pool}}"
            )
        settings = settings.model_copy(update={"served_model": name})
    config = SampleSlice(
        seed=run.config.seed + again * FURTHER_SAMPLE,
        sample=with_defaults(settings, "rl", "evaluation"),  # the number that matters is in `count`
        splits=("validation", "test") if evaluation else ("rl",),
        count=settings.evaluation if evaluation else settings.rl,
        greedy=evaluation,
    )
    where = "evaluation" if evaluation else "rl"
    inputs = {"problems": problems, "generator": generator}
    return run.do(SAMPLE, f"sample-{pool}-{where}", config, inputs, f"sample · {pool} · {where}")


def execute(
    run: Run, problems: ArtifactRef, candidates: ArtifactRef, pool: str, evaluation: bool = False
) -> ArtifactRef:
    """Step D, second part: run the candidates of a pool in the sandbox."""
    config = ExecuteSlice(
        execute=run.config.execute, toolchain=toolchain(run), prompt_style=run.config.model.prompt_style
    )
    where = "evaluation" if evaluation else "rl"
    inputs = {"problems": problems, "candidates": candidates}
    return run.do(EXECUTE, f"execute-{pool}-{where}", config, inputs, f"execute · {pool} · {where}")


def mine(
    run: Run,
    problems: ArtifactRef,
    pools: Pools,
    round: int,
    earlier: tuple[ArtifactRef, ArtifactRef] | None = None,
) -> ArtifactRef:
    """Mine the pairs of `round`. `pools`: those of the rl split so far. `earlier`: (pairs, reranker) of the previous round."""
    settings = run.config.mine
    unused = ["pools", "resample_temperature"]  # the pools' names are in the slice, and they are inputs
    if earlier is None:  # round 1 has no scores, so settings of later rounds cannot change its pairs
        unused.append("threshold")
    elif settings.pools in ("newest", "sft"):
        name = "sft" if settings.pools == "sft" else list(pools)[-1]
        pools = {name: pools[name]}
    settings = with_defaults(settings, *unused).model_copy(update={"kinds": settings.weights(round)})
    thins = earlier is not None and settings.max_pairs is not None
    config = MineSlice(
        seed=run.config.seed,
        round=round,
        pools=tuple(pools),
        mine=settings,
        thins=thins,
        execute=run.config.execute if settings.assertions else None,
        toolchain=toolchain(run) if settings.assertions else None,
        prompt_style=run.config.model.prompt_style if settings.assertions else "completion",
    )
    inputs = _pool_inputs(problems, pools)
    if earlier is not None:
        inputs |= {"pairs": earlier[0], "reranker": earlier[1]}
    return run.do(MINE, f"mine-{round}", config, inputs, f"mine · round {round}")


def train_reward(
    run: Run, generator: ArtifactRef, pairs: ArtifactRef, round: int, before: ArtifactRef | None
) -> ArtifactRef:
    """Steps B and E: train the reranker of `round`.

    Training starts from `before`, the previous round's reranker, if `reward.later_epochs` is set; otherwise from `reward.base`,
    or from the SFT generator if that is null.
    """
    settings = run.config.reward
    start: ArtifactRef | None = generator if settings.base is None else None
    if settings.later_epochs is not None and before is not None:
        start = before
        rate = settings.later_learning_rate or settings.learning_rate / 2
        settings = settings.model_copy(update={"epochs": settings.later_epochs, "learning_rate": rate})
        settings = with_defaults(settings, "head_learning_rate", "random")
    settings = with_defaults(settings, "later_epochs", "later_learning_rate")
    pretrained = run.config.model.base is not None and not run.config.model.random
    config = RewardSlice(
        seed=run.config.seed,
        reward=settings,
        continues=start is before and before is not None,
        tiny=settings.random or (start is generator and not pretrained),
        base_digest=base_digest(settings.model, "reward.base") if start is None else None,
    )
    inputs = {"pairs": pairs} | ({"start": start} if start is not None else {})
    return run.do(TRAIN_REWARD, f"rm-{round}", config, inputs, f"train_reward · round {round}")


def ppo(
    run: Run,
    problems: ArtifactRef,
    generator: ArtifactRef,
    reranker: ArtifactRef,
    round: int,
    before: ArtifactRef | None,
    executions: ArtifactRef | None = None,
) -> ArtifactRef:
    """Step C: train a policy against the reranker of `round`.

    Training starts from `before`, the previous round's policy, with `ppo.start: previous`, otherwise from the SFT policy.
    `executions`: of the SFT policy's samples for mining; read with `ppo.problems: mixed`.
    """
    settings = with_defaults(run.config.ppo, *run.config.ppo.unused)
    start = before if settings.start == "previous" else None
    if start is None:
        settings = with_defaults(settings, "start")
    executes = bool(settings.execution_weight or settings.probe)
    config = PPOSlice(
        seed=run.config.seed,
        ppo=settings,
        max_new_tokens=run.config.sample.max_new_tokens,
        execute=run.config.execute if executes else None,
        toolchain=toolchain(run) if executes else None,
        prompt_style=run.config.model.prompt_style,
    )
    inputs = {"problems": problems, "generator": generator, "reranker": reranker}
    inputs |= {} if start is None else {"start": start}
    if settings.problems == "mixed" and executions is not None:
        inputs["executions"] = executions
    return run.do(PPO, f"ppo-{round}", config, inputs, f"ppo · round {round}")


def agree(run: Run, problems: ArtifactRef, candidates: ArtifactRef, pool: str) -> ArtifactRef:
    """Group a pool's Python programs by their outputs on generated inputs."""
    config = AgreeSlice(
        seed=run.config.seed,
        inputs=run.config.evaluate.agreement,
        execute=run.config.execute,
        toolchain=toolchain(run),
        prompt_style=run.config.model.prompt_style,
    )
    inputs = {"problems": problems, "candidates": candidates}
    return run.do(AGREE, f"agree-{pool}", config, inputs, f"agree · {pool}")


def evaluate(
    run: Run, problems: ArtifactRef, pools: Pools, rerankers: Mapping[str, ArtifactRef]
) -> ArtifactRef:
    """Evaluate `rerankers` (name -> model) on `pools`, whose candidates are for the validation and test splits."""
    groups = {}
    if run.config.evaluate.agreement:
        groups = {f"{name}.{AGREEMENT}": agree(run, problems, pool[0], name) for name, pool in pools.items()}
    config = EvaluateSlice(
        seed=run.config.seed,
        evaluate=run.config.evaluate,
        pools=tuple(pools),
        rerankers=tuple(rerankers),
        reward_models=reward_model_digests(run.config.evaluate),
    )
    return run.do(EVALUATE, "evaluate", config, {**_pool_inputs(problems, pools), **groups, **rerankers})


def report(
    run: Run, problems: ArtifactRef, pools: Pools, pairs: ArtifactRef | None, evaluation: ArtifactRef
) -> ArtifactRef:
    """Write the report on an evaluation. `pairs`: all mined pairs; None if the run mined none."""
    shown = run.config.model_dump(mode="json", exclude={"runtime", "promotion", "store"})
    config = ReportSlice(config=shown, pools=tuple(pools), rounds=run.config.rounds)
    inputs = _pool_inputs(problems, pools) | {"evaluation": evaluation}
    if pairs is not None:
        inputs["pairs"] = pairs
    return run.do(REPORT, "report", config, inputs)


def _pool_inputs(problems: ArtifactRef, pools: Pools) -> dict[str, ArtifactRef]:
    """The input artifacts, under the names that `selftrain.evaluation.pools.load_pool` reads."""
    inputs = {"problems": problems}
    for name, (candidates, executions) in pools.items():
        inputs |= {f"{name}.candidates": candidates, f"{name}.executions": executions}
    return inputs
