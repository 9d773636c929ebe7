"""Runs `tests.plain_set` on every backend: the sandbox's verdicts must equal those of plain tools."""

from sandbox.languages import LANGUAGES
from tests.needs import need_tools
from tests.plain_set import JAVA, compilers, differences, plain_verdicts, programs
from tests.sandbox.conftest import EIGHT, build_image, need_backend

JOBS = 2
FAILING = {"java: two public classes": "compile_error", "java: no main": "failed"}
"""Of the special programs in Java, by hand: plain runs take the class to run from the same class files."""


_FOUND: dict[str, str] = {}
"""The plain verdicts of the image's tools, by id."""


def test_verdicts_are_those_of_the_images_tools_in_all_languages() -> None:
    need_backend("docker")
    build_image("more")
    every = list(programs([*LANGUAGES]))
    assert len(every) > 300
    plain = plain_verdicts(every, "docker", JOBS)
    java = {f"java: {title}" for title in JAVA}
    assert {id: plain[id] for id in java} == dict.fromkeys(java, "passed") | FAILING
    assert all(plain[f"{name}: as usual"] == "passed" for name in LANGUAGES)
    _FOUND.update(plain)
    assert differences(every, plain, "docker", JOBS) == []


def test_verdicts_are_those_of_this_machines_tools_with_and_without_boxes() -> None:
    need_backend("bubblewrap")
    need_tools(*(tool for name in EIGHT for tool in LANGUAGES[name].tools))
    every = list(programs([*EIGHT]))
    # 204 programs are in C++: with the image's compiler here too, compiling them plainly again would only take minutes.
    known = {}
    if _FOUND and compilers("process", "cpp") == compilers("docker", "cpp"):
        known = {id: verdict for id, verdict in _FOUND.items() if id.startswith("cpp: ")}
    plain = known | plain_verdicts([it for it in every if it.id not in known], "process", JOBS)
    assert differences(every, plain, "bubblewrap", JOBS) == []
    # Both backends compile C++ by the same server, each program in a second or more: some are enough.
    some = [it for at, it in enumerate(every) if at % 4 == 0 or not it.id.startswith("cpp: ")]
    assert differences(some, plain, "process", JOBS) == []
