"""Stage `ppo`: SFT policy (+ previous policy) + reranker -> trained policy. The work is in `selftrain.training.ppo.train`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from sandbox.verdicts import Program, Verdict
from selftrain.config import ExecuteConfig, PPOConfig, Strict
from selftrain.launch.launch import OnRequest, launch
from selftrain.problems.chat import completion_of
from selftrain.records import Problem, PromptStyle, read_records
from selftrain.stage import Context, Outcome, Stage
from selftrain.stages.execute import judge, known_verdicts, programs


class PPOSlice(Strict):
    """What the trained policy depends on besides the problems, the SFT policy and the reranker.

    execute, toolchain  as in `ExecuteSlice`; None if no completion is executed (`execution_weight` and `probe` are 0)
    prompt_style        the SFT policy's
    """

    keyed_when_set = frozenset({"prompt_style"})

    seed: int
    ppo: PPOConfig
    max_new_tokens: int
    execute: ExecuteConfig | None = None
    toolchain: dict[str, str] | None = None
    prompt_style: PromptStyle = "completion"


def run(context: Context) -> Outcome:
    """Reads `problems`, `generator` and `reranker`; writes a causal language model, its tokenizer and `samples.json`.

    With `ppo.start: previous` it also reads `start`, the policy that training starts from; without this input training starts
    from `generator`, the SFT policy. The KL penalty always refers to `generator`. With `ppo.problems: mixed` it reads `executions`
    of the SFT policy's samples for the rl split.
    If completions are executed, the training process sends them to this process, since it may not open a sandbox itself.
    """
    with ExitStack() as stack:
        answer = None if context.config.execute is None else stack.enter_context(passing(context))
        return launch("selftrain.training.ppo.train", context, distributed=True, on_request=answer)


@contextmanager
def passing(context: Context) -> Iterator[OnRequest]:
    """Yields a function that runs rows [problem id, completion]; it returns whether each passes, None if the sandbox failed."""
    problems = {p.id: p for p in read_records(context.inputs["problems"] / "problems.parquet", Problem)}
    style: PromptStyle = context.config.prompt_style
    with context.sandbox() as sandbox, known_verdicts(context) as cache:

        def answer(rows: list[list[str]]) -> list[bool | None]:
            wanted: list[Program] = []
            for at, (name, text) in enumerate(rows):
                problem = replace(problems[name], example_tests="")
                completion = completion_of(problem, text, style)
                wanted += programs(problem, str(at), completion, context.config.execute, style)
            results = judge(wanted, sandbox, cache, lambda _: None)
            verdicts = [results[str(at)].verdict for at in range(len(rows))]
            return [verdict is Verdict.passed if verdict.is_label else None for verdict in verdicts]

        yield answer


PPO = Stage("ppo", 4, run, trains=True)
