"""Runs `tests.plain_set` on every backend: the sandbox's verdicts must equal those of plain tools."""

from pathlib import Path

import pytest

from sandbox.languages import LANGUAGES
from sandbox.verdicts import Program
from tests.needs import need_tools
from tests.plain import KEPT, keep, plain_verdicts
from tests.plain_set import JAVA, differences, programs
from tests.sandbox.conftest import EIGHT, build_image, need_backend

JOBS = 2
FAILING = {"java: two public classes": ["compile_error"], "java: no main": ["failed"]}
"""Of the special programs in Java, by hand: plain runs take the class to run from the same class files."""


def test_verdicts_are_those_of_the_images_tools_in_all_languages() -> None:
    need_backend("docker")
    build_image("more")
    every = list(programs([*LANGUAGES]))
    assert len(every) > 300
    plain = plain_verdicts(every, "docker", JOBS, kept=KEPT)
    java = {f"java: {title}" for title in JAVA}
    assert {id: plain[id] for id in java} == {id: ["passed"] for id in java} | FAILING
    assert all(plain[f"{name}: as usual"] == ["passed"] for name in LANGUAGES)
    assert differences(every, plain, "docker", JOBS) == []


def test_verdicts_are_those_of_this_machines_tools_with_and_without_boxes() -> None:
    need_backend("bubblewrap")
    need_tools(*(tool for name in EIGHT for tool in LANGUAGES[name].tools))
    every = list(programs([*EIGHT]))
    # All backends compile C++ by the same server, each of the 204 programs in a second or more: some are enough here.
    samples = {
        backend: [it for at, it in enumerate(every) if at % 4 == part or not it.id.startswith("cpp: ")]
        for backend, part in (("bubblewrap", 0), ("process", 2))
    }
    both = {program.id: program for sample in samples.values() for program in sample}
    plain = plain_verdicts([*both.values()], "process", JOBS, kept=KEPT)
    for backend, sample in samples.items():
        assert differences(sample, plain, backend, JOBS) == []


def test_a_kept_verdict_that_is_not_the_tools_is_noticed(tmp_path: Path) -> None:
    need_tools("python3")
    every = [
        Program(str(n), "py", f"print({n})") for n in range(100)
    ]  # of which about ten are run again, whatever the tools
    said = plain_verdicts(every, "process", JOBS)
    assert said == {program.id: ["passed"] for program in every}
    keep(every, "process", said, tmp_path / "kept")
    assert plain_verdicts(every, "process", JOBS, kept=tmp_path / "kept") == said
    keep(every, "process", {id: ["failed"] for id in said}, tmp_path / "kept")
    with pytest.raises(ValueError, match=r"\('failed', 'passed'\)"):
        plain_verdicts(every, "process", JOBS, kept=tmp_path / "kept")
