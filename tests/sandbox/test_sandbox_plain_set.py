"""Runs `tests.plain_set` on every backend: the sandbox's verdicts must equal those of plain tools."""

from sandbox.languages import LANGUAGES
from tests.needs import need_tools
from tests.plain_set import JAVA, differences, plain_verdicts, programs
from tests.sandbox.conftest import EIGHT, build_image, need_backend

JOBS = 2
FAILING = {"java: two public classes": "compile_error", "java: no main": "failed"}
"""Of the special programs in Java, by hand: plain runs take the class to run from the same class files."""


def test_verdicts_are_those_of_the_images_tools_in_all_languages() -> None:
    need_backend("docker")
    build_image("more")
    every = list(programs([*LANGUAGES]))
    assert len(every) > 300
    plain = plain_verdicts(every, "docker", JOBS)
    java = {f"java: {title}" for title in JAVA}
    assert {id: plain[id] for id in java} == dict.fromkeys(java, "passed") | FAILING
    assert all(plain[f"{name}: as usual"] == "passed" for name in LANGUAGES)
    assert differences(every, plain, "docker", JOBS) == []


def test_verdicts_are_those_of_this_machines_tools_with_and_without_boxes() -> None:
    need_backend("bubblewrap")
    need_tools(*(tool for name in EIGHT for tool in LANGUAGES[name].tools))
    every = list(programs([*EIGHT]))
    plain = plain_verdicts(every, "process", JOBS)
    assert {backend: differences(every, plain, backend, JOBS) for backend in ("process", "bubblewrap")} == {
        "process": [],
        "bubblewrap": [],
    }
