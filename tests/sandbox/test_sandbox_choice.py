"""Tests of `build --apt --pip --npm`: names, fetched packages, what the identity says, an image with more libraries."""

import io
import json
import os
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from docker.errors import DockerException

from sandbox import installed
from sandbox.backends import docker
from sandbox.backends.choice import Choice, fetch, machine
from sandbox.cli import main
from sandbox.client import Sandbox
from sandbox.errors import BackendUnavailable, UsageError
from sandbox.languages import COMMON, MORE, language
from sandbox.verdicts import Program
from tests.sandbox.conftest import need_backend


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "apt",
            ("python3-scipy", "g++", "libgmp-dev=2:6.2.1+dfsg1-1.1", "7zip"),
            ("", "-y", "--reinstall", "bash-", "a", "A", "a b", "a;b", "$(a)", "./a.deb", "a/sid", "a:i386", "a*", "^a", "a=", "é"),
        ),
        (
            "pip",
            ("six", "scikit-learn==1.3.2", "x==1!2.0+cpu", "A_b.c"),
            ("", "-r", "--index-url=x", "a b", "a>1", "a==", "./a", "git+https://x", "a @ https://x", "a[b]", "a;b", "a-", "é"),
        ),
        (
            "npm",
            ("mathjs", "mathjs@12.4.0", "@babel/core@7.0.0-beta.1", "a_b.c"),
            ("", "-g", "--force", "a b", "user/a", "../a", "a@", "a@npm:b", "a@https://x", "https://x", "@a", "a;b", "a@^1", "é"),
        ),
    ],
)  # fmt: skip
def test_only_names_are_libraries(kind: str, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    Choice(**{kind: good})
    for name in bad:
        with pytest.raises(UsageError, match=f"--{kind}: expected a name such as"):
            Choice(**{kind: (name,)})


def test_a_wrong_name_on_the_command_line_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--apt", "python3-scipy", "rm -rf"]) == 2
    assert capsys.readouterr().err == "error: --apt: expected a name such as python3-scipy, got 'rm -rf'\n"


def test_every_choice_has_a_tag_of_its_own() -> None:
    choices = [
        Choice(),
        Choice(apt=("a1", "b1")),
        Choice(apt=("a1",)),
        Choice(pip=("a1",)),
        Choice(npm=("a1",)),
        Choice(pip=("a1==1",)),
    ]
    assert len({docker.chosen_tag(image, one) for one in choices for image in (COMMON, MORE)}) == 12
    assert docker.chosen_tag(COMMON, Choice()) == docker.tag(COMMON)
    assert Choice(apt=("b1", "a1", "b1")).digest() == choices[1].digest()


def test_an_image_without_node_gets_no_modules() -> None:
    with pytest.raises(UsageError, match="--npm: the image more has no node"):
        list(docker.build(MORE, Choice(npm=("mathjs",))))


def test_asked_libraries_are_described_and_the_others_by_a_digest() -> None:
    versions = {"a": "1", "b": "2", "c": "3"}
    assert installed.described(versions, ["b", "a"])[:2] == ["a 1", "b 2"]
    (_, _, rest) = installed.described(versions, ["b", "a"])
    assert rest.startswith("with 1 others ")
    assert installed.described(versions | {"c": "4"}, ["a", "b"])[2] != rest
    assert installed.described({"a": "1"}, ["a", "gone"]) == ["a 1"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("py", ["x1 1.0", "with 1 others ", "six 1.16.0"]),
        ("js", ["x1 1.0", "with 1 others ", "mathjs 12.4.0"]),
        ("ts", ["x1 1.0", "with 1 others ", "mathjs 12.4.0"]),
        ("cpp", ["x1 1.0", "with 1 others "]),
    ],
)
def test_the_identity_names_what_a_languages_programs_reach(
    monkeypatch: pytest.MonkeyPatch, name: str, found: list[str]
) -> None:
    monkeypatch.setattr(installed, "_packages", lambda: {"x1": "1.0", "libx1": "2.0"})
    choice = {"apt": ["x1"], "pip": ["six 1.16.0"], "npm": ["mathjs 12.4.0"]}
    said = installed.chosen_libraries(language(name), choice)
    assert len(said) == len(found)
    assert all(map(str.startswith, said, found)), said
    assert installed.chosen_libraries(language(name), {"apt": [], "pip": [], "npm": []}) == []


def test_an_added_library_changes_the_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installed, "CHOICE", tmp_path / "versions.json")
    before = installed.installed_libraries(language("py"))
    installed.CHOICE.write_text(json.dumps({"apt": [], "pip": ["six 1.16.0"], "npm": []}))
    assert installed.installed_libraries(language("py")) == [*before, "six 1.16.0"]


def write_wheel(folder: Path, name: str, version: str, code: str, needs: str = "") -> None:
    """A wheel with one module."""
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{about}/METADATA", metadata)
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand-ins for the registries: pip's is a folder of wheels, and npm is a script."""
    folder = tmp_path / "registries"
    folder.mkdir()
    write_wheel(folder, "Pick_ed", "1.5", "import behind\nvalue = behind.value + 1\n", "behind")
    write_wheel(folder, "behind", "2.0", "value = 41\n")
    npm = folder / "npm"
    npm.write_text(
        """#!/bin/sh
if [ "$1" = pack ]; then PATH=${PATH#*:} exec npm "$@"; fi  # of the image's usual modules
echo "$@" > "$(dirname "$0")/asked"
mkdir -p node_modules/@scope/picked/node_modules/deep node_modules/.bin
echo "module.exports = require('deep') + 1" > node_modules/@scope/picked/index.js
echo "module.exports = 41" > node_modules/@scope/picked/node_modules/deep/index.js
ln -s /etc/passwd node_modules/.bin/link
echo '{"packages": {"": {}, "node_modules/@scope/picked": {"version": "3.0"},
  "node_modules/@scope/picked/node_modules/deep": {"version": "4.0"}}}' > package-lock.json
"""
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


CHOSEN = Choice(pip=("pick-ed==1.5",), npm=("@scope/picked@3.0",))


def test_packages_are_fetched_with_what_they_need(registries: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chosen"
    folder.mkdir()
    fetch(Choice(("python3-six=1.16", "a1"), CHOSEN.pip, CHOSEN.npm), "x86_64", folder)
    versions = json.loads((folder / "versions.json").read_text())
    assert (versions["apt"], versions["pip"][0], versions["npm"][0]) == (
        ["python3-six", "a1"],
        "pick-ed 1.5",
        "@scope/picked 3.0",
    )
    assert versions["pip"][1].startswith("with 1 others ")
    assert versions["npm"][1].startswith("with 1 others ")
    assert {"Pick_ed.py", "behind.py"} <= set(os.listdir(folder / "python"))
    assert (folder / "node/@scope/picked/node_modules/deep/index.js").exists()
    asked = (registries / "asked").read_text().split()
    assert ("--ignore-scripts" in asked, asked[-2:]) == (True, ["--", "@scope/picked@3.0"])


def test_the_build_context_has_files_and_no_links(registries: Path) -> None:
    context = io.BytesIO()
    assert docker.write_context(context, False, CHOSEN, "x86_64") == []
    with tarfile.open(fileobj=context) as archive:
        entries = {entry.name: entry for entry in archive}
    assert "chosen/node/@scope/picked/index.js" in entries
    assert "chosen/node/.bin/link" not in entries
    assert {(entry.uid, entry.mode) for entry in entries.values() if entry.isfile()} == {(0, 0o644)}


def test_a_source_distribution_is_not_built(registries: Path, tmp_path: Path) -> None:
    with tarfile.open(registries / "risky-1.0.tar.gz", "w:gz") as archive:
        setup = tmp_path / "setup.py"
        setup.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        archive.add(setup, "risky-1.0/setup.py")
    folder = tmp_path / "chosen"
    folder.mkdir()
    with pytest.raises(BackendUnavailable, match=r"could not be fetched: [\s\S]*risky"):
        fetch(Choice(pip=("risky",)), "x86_64", folder)
    assert not (tmp_path / "ran").exists()


def test_a_registry_that_has_it_not_and_an_npm_that_is_not_there_are_told(
    registries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (registries / "npm").write_text("#!/bin/sh\necho 404 no such module >&2\nexit 1\n")
    with pytest.raises(BackendUnavailable, match="could not be fetched: 404 no such module"):
        fetch(Choice(npm=("nowhere",)), "x86_64", tmp_path / "a")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="npm is not on PATH"):
        fetch(Choice(npm=("nowhere",)), "x86_64", tmp_path / "b")


def test_dockers_name_of_a_processor_is_the_kernels() -> None:
    assert [machine(name) for name in ("amd64", "arm64", "riscv64")] == ["x86_64", "aarch64", "riscv64"]


def judged(programs: list[Program]) -> tuple[dict[str, str], dict[str, str]]:
    """Identities of three languages, and the programs' verdicts, in a new sandbox."""
    with Sandbox("docker") as sandbox:
        found = {result.id: str(result.verdict) for result in sandbox.run(programs)}
        return {name: sandbox.identity(name) for name in ("py", "js", "cpp")}, found


@pytest.mark.slow
def test_an_image_with_more_libraries(registries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a name of its own: sandboxes of other tests keep the usual image."""
    need_backend("docker")
    client, tag = docker.connect(), docker.tag
    choice = Choice(("python3-sortedcontainers",), CHOSEN.pip, CHOSEN.npm)
    programs = [
        Program("apt", "py", "from sortedcontainers import SortedList\nassert SortedList([2, 1])[0] == 1"),
        Program("pip", "py", "import Pick_ed\nassert Pick_ed.value == 42"),
        Program("npm", "js", "if (require('@scope/picked') !== 42) throw 1"),
    ]
    monkeypatch.setattr(docker, "tag", lambda image=COMMON: tag(image) + "-test")
    usual, chosen = client.images.get(tag(COMMON)), docker.chosen_tag(COMMON, choice)
    usual.tag(*docker.tag().split(":"))
    start = docker.starter()
    try:
        start(COMMON).kill()
        before, found = judged(programs)
        assert set(found.values()) == {"runtime_error"}
        list(docker.build(COMMON, choice))
        after, found = judged(programs)
        assert found == dict.fromkeys(("apt", "pip", "npm"), "passed")
        assert client.images.get(docker.tag()).id == client.images.get(chosen).id != usual.id
        worker = start(COMMON)
        assert worker._container.attrs["Image"] == usual.id  # an open sandbox stays with its image
        worker.kill()
    finally:
        for name in (docker.tag(), chosen):
            with suppress(DockerException):
                client.images.remove(name, force=True)
    assert "python3-sortedcontainers 2.4.0" in after["cpp"]
    assert "pick-ed 1.5; with 1 others" in after["py"]
    assert "@scope/picked 3.0; with 1 others" in after["js"]
    assert all(before[name].partition("; rules")[0] in after[name] for name in before)
    assert "pick-ed" not in after["js"] + after["cpp"] + before["py"]
