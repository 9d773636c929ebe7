"""Tests of third-party libraries: those in the images work, and the result's note names a missing one. Also npm modules."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from sandbox import libraries
from sandbox.backends import docker, npm
from sandbox.client import Sandbox
from sandbox.errors import BackendUnavailable
from sandbox.languages import LANGUAGES, MORE, NODE_BUILDS, NODE_MODULES, PATH, Language, language
from sandbox.libraries import linker
from sandbox.verdicts import Case, Program, Result, Verdict
from tests.command import ROOT
from tests.sandbox.conftest import build_image, need_backend

NUMPY = {
    "solve": """import numpy as np
a = np.array([[2.0, 1.0], [1.0, 3.0]])
assert np.allclose(a @ np.linalg.solve(a, [3.0, 5.0]), [3.0, 5.0])
assert np.linalg.matrix_rank(np.outer([1, 2], [3, 4])) == 1
""",
    "large": """import numpy
a = numpy.arange(360_000.0).reshape(600, 600)
assert (a.dot(numpy.eye(600)) == a).all()
assert numpy.linalg.eigvalsh(numpy.diag([3.0, 1.0])).tolist() == [1.0, 3.0]
""",
    "threads": """import threading
import numpy
found = []
def work(n):
    found.append(int(numpy.dot(numpy.full(1000, n), numpy.ones(1000))))
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for one in threads: one.start()
for one in threads: one.join()
assert sorted(found) == [1000 * n for n in range(8)]
""",
    "random": """from numpy.random import default_rng
assert default_rng(0).integers(0, 9, 100).max() < 9
""",
    "too large for the warm compiler": "import numpy\nassert numpy.ones(3).sum() == 3\n" + "# much\n" * 8000,
}
BOOST = {
    "any": """#include <boost/any.hpp>
#include <cassert>
#include <vector>
int main() { std::vector<boost::any> all{1, 2.5}; assert(boost::any_cast<int>(all[0]) == 1); }
""",
    "algorithm": """#include <bits/stdc++.h>
#include <boost/algorithm/string.hpp>
int main() {
    std::vector<std::string> parts;
    boost::split(parts, "a b c", boost::is_any_of(" "));
    assert(boost::join(parts, "-") == "a-b-c" && boost::to_upper_copy(parts[0]) == "A");
}
""",
    "multiprecision": """#include <iostream>
#  include <boost/multiprecision/cpp_int.hpp>
#include <cassert>
int main() { boost::multiprecision::cpp_int n = 1; assert((n << 200) % 7 == 4); }
""",
}
MD5 = """    unsigned char got[MD5_DIGEST_LENGTH];
    MD5((const unsigned char *)"Hello world", 11, got);
    assert(got[0] == 0x3e && got[15] == 0x62);
"""
OPENSSL = {
    "md5": "#include <cassert>\n#include <openssl/md5.h>\nint main() {\n" + MD5 + "}\n",
    "after the precompiled": '#include <bits/stdc++.h>\n# \tinclude "openssl/md5.h" // md5\nint main() {\n'
    + MD5
    + "}\n",
    "sha": """#include <iostream>
#include <openssl/sha.h>
#include <openssl/evp.h>
#include <cassert>
int main() {
    unsigned char got[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)"", 0, got);
    assert(got[0] == 0xe3 && got[31] == 0x55 && EVP_sha1() != nullptr);
}
""",
}
SPEAK_OF_OPENSSL = {
    "comment": "// #include <openssl/md5.h>\nint main() {}\n",
    "block": "/*\n#include <openssl/md5.h>\n*/\nint main() {}\n",
    "condition": "#if 0\n#include <openssl/md5.h>\n#endif\nint main() {}\n",
    "own names": "/*\n#include <openssl/md5.h>\n*/\nint MD5(int x) { return x; }\nint main() { return MD5(0); }\n",
}
JS_MD5 = {
    "call": "const md5 = require('js-md5');\nif (md5('Hello world') !== '3e25960a79dbc69b674cd4ec67a72c62') throw 1;\n",
    "hex": "var md5 = require('js-md5');\nif (md5.create().update('').hex() !== 'd41d8cd98f00b204e9800998ecf8427e') throw 1;\n",
    "array": "if (require('js-md5').array('a').length !== 16) throw 1;\n",
}
LODASH = {
    "call": "const _ = require('lodash');\nif (_.chunk([1, 2, 3], 2).length !== 2) throw 1;\n",
    "order": "const { sortBy, isEqual } = require('lodash');\nif (!isEqual(sortBy([3, 1, 2]), [1, 2, 3])) throw 1;\n",
    "part": "if (require('lodash/fp').add(1)(2) !== 3) throw 1;\n",
}
CATCHES = "import traceback\ntry:\n    import no_such\nexcept ImportError:\n    traceback.print_exc()"


def judge(sandbox: Sandbox, name: str, source: str, cases: tuple[Case, ...] = ()) -> Result:
    sandbox.need(name)
    (result,) = sandbox.run([Program("x", name, source, cases)])
    return result


@pytest.fixture(scope="module", params=[(), (Case("", ""),)], ids=["tests", "cases"])
def cases(request: pytest.FixtureRequest) -> tuple[Case, ...]:
    """No case, or one: contest programs are compiled and run by other commands."""
    return request.param


@cache
def lacks(sandbox: Sandbox, name: str, source: str) -> bool:
    """Whether a library that `source` uses is missing. Asked once: many tests use each library."""
    return bool(judge(sandbox, name, source).note)


def needs_of_machine(sandbox: Sandbox, name: str, source: str) -> None:
    """Skip, also in CI, if the backend uses the machine's libraries and this one is missing; docker's image has it."""
    if sandbox.backend != "docker" and lacks(sandbox, name, source):
        pytest.skip("this machine lacks the library")


@pytest.mark.parametrize("what", NUMPY)
def test_numpy_works_within_the_limits(sandbox: Sandbox, cases: tuple[Case, ...], what: str) -> None:
    needs_of_machine(sandbox, "py", "import numpy")
    result = judge(sandbox, "py", NUMPY[what], cases)
    assert (result.verdict, result.note) == (Verdict.passed, ""), result


def test_numpy_is_not_there_before_a_program_asks_for_it(sandbox: Sandbox) -> None:
    source = "import sys\nassert not [name for name in sys.modules if name.startswith('numpy')]\n"
    assert judge(sandbox, "py", source).verdict is Verdict.passed


@pytest.mark.parametrize("what", BOOST)
def test_boost_is_there(sandbox: Sandbox, cases: tuple[Case, ...], what: str) -> None:
    needs_of_machine(sandbox, "cpp", "#include <boost/any.hpp>\nint main() {}\n")
    result = judge(sandbox, "cpp", BOOST[what], cases)
    assert (result.verdict, result.note) == (Verdict.passed, ""), result


@pytest.mark.parametrize("what", OPENSSL)
def test_openssl_is_linked_where_it_is_asked_for(
    sandbox: Sandbox, cases: tuple[Case, ...], what: str
) -> None:
    needs_of_machine(sandbox, "cpp", "#include <openssl/md5.h>\nint main() {}\n")
    result = judge(sandbox, "cpp", OPENSSL[what], cases)
    assert (result.verdict, result.note) == (Verdict.passed, ""), result


@pytest.mark.parametrize("what", SPEAK_OF_OPENSSL)
def test_programs_that_speak_of_openssl_alone_are_what_they_were(
    sandbox: Sandbox, cases: tuple[Case, ...], what: str
) -> None:
    assert judge(sandbox, "cpp", SPEAK_OF_OPENSSL[what], cases).verdict is Verdict.passed


def test_openssl_is_not_linked_without_its_header(sandbox: Sandbox) -> None:
    source = 'extern "C" int RAND_status(void);\nint main() { return !RAND_status(); }\n'
    result = judge(sandbox, "cpp", source)
    assert (result.verdict, result.note) == (Verdict.compile_error, ""), result
    assert "undefined reference" in result.stderr


@pytest.mark.parametrize(
    ("source", "linked"),
    [
        ("#include <openssl/md5.h>\n", True),
        ("int x;\n\t#\tinclude\t<openssl/evp.h>\r\n", True),
        ('#include "openssl/sha.h"\n', True),
        ("#include<openssl/md5.h>", True),
        ("%:include <openssl/md5.h>", True),
        ("", False),
        ("// #include <openssl/md5.h>\n", False),
        ("/* #include <openssl/md5.h> */\n", False),
        ("#include <vector>\n// openssl/md5.h\n", False),
        ("#include <md5.h>\n", False),
        ("#include <myopenssl/md5.h>\n", False),
        ('const char *s = "#include <openssl/md5.h>";\n', False),
    ],
)
def test_a_header_of_openssl_is_known_by_its_line(
    monkeypatch: pytest.MonkeyPatch, source: str, linked: bool
) -> None:
    monkeypatch.setattr(libraries, "_has_openssl", lambda: True)
    assert libraries.openssl(source) == ("-Wl,--as-needed,-lssl,-lcrypto" if linked else "")


def test_what_is_not_there_is_not_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_has_openssl", lambda: False)
    assert libraries.openssl("#include <openssl/md5.h>\n") == ""


@pytest.mark.parametrize("what", JS_MD5)
@pytest.mark.parametrize("name", ["js", "ts"])
def test_js_md5_is_there(sandbox: Sandbox, cases: tuple[Case, ...], name: str, what: str) -> None:
    needs_of_machine(sandbox, "js", "require('js-md5')")
    source = JS_MD5[what]
    if name == "ts":
        source = "declare var require: any;\n" + source
    result = judge(sandbox, name, source, cases)
    if result.note:
        pytest.skip("the image was built without js-md5: npm reached no registry")
    assert (result.verdict, result.note) == (Verdict.passed, ""), result


@pytest.mark.parametrize("what", LODASH)
@pytest.mark.parametrize("name", ["js", "ts"])
def test_lodash_is_there(sandbox: Sandbox, cases: tuple[Case, ...], name: str, what: str) -> None:
    needs_of_machine(sandbox, "js", "require('lodash')")
    result = judge(sandbox, name, "declare var require: any;\n" * (name == "ts") + LODASH[what], cases)
    assert (result.verdict, result.note) == (Verdict.passed, ""), result


@pytest.mark.parametrize(
    ("name", "source", "verdict", "library"),
    [
        ("py", "import no_such_library", "runtime_error", "no_such_library"),
        ("py", "from no_such.part import x", "runtime_error", "no_such"),
        ("py", "import numpy.no_such as x\n", "runtime_error", None),
        ("py", "try:\n    import no_such\nexcept ImportError:\n    pass\n", "passed", ""),
        ("py", "try:\n    import no_such\nexcept ImportError:\n    pass\nassert 1 > 2", "wrong_answer", ""),
        ("py", f"{CATCHES}\nassert 1 > 2", "wrong_answer", ""),
        ("py", f"{CATCHES}\nraise SystemExit(3)", "runtime_error", "no_such"),
        ("py", "try:\n    import no_such\nexcept ImportError as error:\n    raise OSError from error", "runtime_error", "no_such"),
        ("py", "try:\n    import no_such\nexcept ImportError:\n    import nor_this", "runtime_error", "no_such"),
        ("py", "import os\nos.no_such()", "runtime_error", ""),
        ("py", "x.no_such", "runtime_error", ""),
        ("cpp", "#include <no/such.hpp>\nint main() {}", "compile_error", "no/such.hpp"),
        ("cpp", '#include <iostream>\n#include "no_such.h"\nint main() {}', "compile_error", "no_such.h"),
        ("cpp", "int main() { no_such(); }", "compile_error", ""),
        ("java", "import org.no.such.Pair;\nclass A { public static void main(String[] a) {} }", "compile_error", "org.no.such"),
        ("java", "import java.no.Such;\nclass A { public static void main(String[] a) {} }", "compile_error", ""),
        ("java", "class A { public static void main(String[] a) { Sytem.out.println(); } }", "compile_error", ""),
        ("php", "<?php require 'vendor/autoload.php';", "runtime_error", "vendor/autoload.php"),
        ("php", "<?php echo gmp_no_such(1);", "runtime_error", "gmp_no_such"),
        ("php", "<?php echo no_such(1);", "runtime_error", ""),
        ("php", "<?php new NoSuch();", "runtime_error", ""),
        ("ts", "import { x } from 'no-such';\nconsole.log(x);", "compile_error", "no-such"),
        ("ts", "declare var require: any;\nrequire('no-such');", "runtime_error", "no-such"),
        ("ts", "import * as fs from 'fs';\nfs.x();", "compile_error", ""),
        ("ts", "import { x } from './other';\nx();", "compile_error", ""),
        ("js", "const x = require('no-such');", "runtime_error", "no-such"),
        ("js", "require('@no/such/part');", "runtime_error", "@no/such/part"),
        ("js", "require('./no-such');", "runtime_error", ""),
        ("js", "try { require('no-such') } catch (error) { console.error(error) }\nthrow Error('own')", "runtime_error", ""),
        ("js", "(async () => require('no-such'))()", "runtime_error", "no-such"),
        ("js", "import('no-such')", "runtime_error", "no-such"),
        ("js", "noSuch();", "runtime_error", ""),
        ("cs", "using NoSuch.Json;\nclass A { static void Main() {} }", "compile_error", "NoSuch"),
        ("cs", "class A { static void Main() { NoSuch x = null; } }", "compile_error", ""),
        ("sh", "no_such_command", "runtime_error", ""),
        ("sh", "dc -e '1 2 + p'", None, "dc"),
    ],
)  # fmt: skip
def test_a_library_that_is_not_there_is_told(
    sandbox: Sandbox, name: str, source: str, verdict: str | None, library: str | None
) -> None:
    result = judge(sandbox, name, source)
    if library is not None and (verdict or result.verdict is not Verdict.passed):  # the machine may have dc
        assert libraries.named_in(result.note) == library, result
        assert bool(result.note) == bool(library)
    assert verdict in (None, result.verdict), result


@pytest.fixture(scope="module")
def contained() -> Iterator[Sandbox]:
    need_backend("docker")
    with Sandbox("docker") as made:
        yield made


@pytest.mark.parametrize(
    ("name", "source", "library"),
    [
        ("go", 'package main\nimport "github.com/no/such"\nfunc main() { such.X() }', "github.com/no/such"),
        ("go", 'package main\nimport "nosuch"\nfunc main() { nosuch.X() }', "nosuch"),
        ("go", "package main\nfunc main() { nosuch.X() }", ""),
        ("rs", "use rand::Rng;\nfn main() {}", "rand"),
        ("rs", "extern crate regex;\nfn main() {}", "regex"),
        ("rs", "fn main() { let _ = itertools::zip(); }", "itertools"),
        ("rs", "use std::collections::NoSuch;\nfn main() {}", ""),
        ("rb", "require 'no_such/part'", "no_such/part"),
        ("rb", "require_relative 'no_such'", ""),
        ("lua", "local x = require('no.such')", "no.such"),
        ("lua", "no_such()", ""),
        ("pl", "use No::Such;", "No::Such"),
        ("pl", "no_such();", ""),
    ],
)
def test_one_that_is_not_in_the_image_is_told(
    contained: Sandbox, name: str, source: str, library: str
) -> None:
    result = judge(contained, name, source)
    assert result.verdict in (Verdict.compile_error, Verdict.runtime_error), result
    assert libraries.named_in(result.note) == library, result


@pytest.mark.parametrize(
    ("name", "source", "library"),
    [
        ("r", "library(nosuch)", "nosuch"),
        ("r", "no_such(1)", ""),
        ("d", "import no.such;\nvoid main() {}", "no/such"),
        ("rkt", "#lang racket\n(require no/such)", "no/such"),
        ("ml", "open Core\nlet () = ()", "Core"),
        ("ml", "let () = Lst.map 1", ""),
        ("hs", "import Data.No.Such\nmain = pure ()", "Data.No.Such"),
        ("ex", "defmodule A do\n  import NoSuch\nend", "NoSuch"),
        ("scala", "import cats.implicits._\nobject A extends App {}", "cats"),
        ("scala", "import org.nosuch.X\nobject A extends App {}", "nosuch"),
        ("clj", "(require '[no.such :as s])", "no/such"),
    ],
)
def test_one_that_is_not_in_the_other_image_is_told(
    contained: Sandbox, name: str, source: str, library: str
) -> None:
    build_image(MORE)
    result = judge(contained, name, source)
    assert result.verdict in (Verdict.compile_error, Verdict.runtime_error), result
    assert libraries.named_in(result.note) == library, result


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("ModuleNotFoundError: No module named 'numpy'\n", "numpy"),
        ("x\nModuleNotFoundError: No module named 'a.b'; 'a' is not a package", "a.b"),
        ("ModuleNotFoundError: No module named 'a\x1b[2J\u202eb'", "a?[2J?b"),
        ("ModuleNotFoundError: No module named 'a\nb'", ""),
        (f"ModuleNotFoundError: No module named '{'a' * 101}'", ""),
        ("  ModuleNotFoundError: No module named 'a'", ""),
        ("", ""),
    ],
)
def test_what_a_program_says_goes_into_no_note_as_it_is(said: str, name: str) -> None:
    assert libraries.missing_library(language("py"), said) == name


def test_a_note_is_one_line_and_names_the_library_and_what_to_read() -> None:
    said = "ModuleNotFoundError: No module named 'numpy'\n"
    note = libraries.note(language("py"), Verdict.runtime_error, 1, "", said)
    assert note == "dependency_missing: numpy is not found here; see Libraries in sandbox/README.md"
    assert libraries.named_in(note) == "numpy"
    assert libraries.named_in("unreadable answer: dependency_missing: numpy") == ""
    for verdict in (Verdict.passed, Verdict.timeout, Verdict.memory_exceeded, Verdict.sandbox_error):
        assert libraries.note(language("py"), verdict, 1, "", said) == ""
    assert libraries.note(language("py"), Verdict.runtime_error, 1, said, "") == ""


def test_a_program_that_went_on_to_its_end_lacked_nothing_but_a_script_may() -> None:
    said = "ModuleNotFoundError: No module named 'numpy'\n"
    assert libraries.note(language("py"), Verdict.wrong_answer, 0, "", said) == ""
    said = "main.sh: line 1: bc: command not found\n"
    for exit_code in (0, 127):
        note = libraries.note(language("sh"), Verdict.wrong_answer, exit_code, "", said)
        assert libraries.named_in(note) == "bc"


def test_libraries_and_what_is_said_of_them_are_in_no_key() -> None:
    row = language("py")
    assert row.rules() == replace(row, libraries=("python3-scipy",), missing="x").rules()
    assert row.rules() != replace(row, env=()).rules()


@pytest.mark.parametrize("row", LANGUAGES.values(), ids=LANGUAGES)
def test_the_page_lists_what_the_images_have(row: Language) -> None:
    page = ROOT.joinpath("docs", "sandbox.md").read_text()
    listed = [*row.libraries, *(NODE_MODULES if row.name == "js" else ())]
    assert [name for name in listed if f"`{name}`" not in page] == []


def as_npm(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{PATH}")


DIGEST = "sha512-1Q/eVxSVE5ZOxcsXbpzh4Qeab+Ojp6+vaoryzR5MEDWeEKQqsgd4c2qSsplMeD5RmGtpKIVjDXvk47fX1UZGMg=="


def test_a_module_is_taken_from_npm_by_its_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    as_npm(monkeypatch, tmp_path, "printf packed > a-1.0.tgz")
    assert npm.module("a@1.0", DIGEST) == b"packed"
    with pytest.raises(BackendUnavailable, match="another file: expected sha512-x, got sha512-1Q/e"):
        npm.module("a@1.0", "sha512-x")


def test_what_npm_cannot_give_is_told_and_the_image_built_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_npm(monkeypatch, tmp_path, "echo no network >&2; exit 1")
    with pytest.raises(BackendUnavailable, match="npm failed: no network"):
        npm.module("a@1.0", DIGEST)
    entries, lacking = context()
    assert lacking == [
        "the image has Debian's node, which is older and starts more slowly: npm failed: no network",
        "the image is without js-md5@0.8.3 for node: npm failed: no network",
    ]
    assert [entries[name].isdir() for name in ("node", "modules")] == [True, True]
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert [message.rpartition(": ")[2] for message in context()[1]] == ["npm is not on PATH"] * 2


def context(node: bool = True) -> tuple[dict[str, tarfile.TarInfo], list[str]]:
    """The entries of an image's build context by path, and what could not be fetched."""
    file = io.BytesIO()
    lacking = docker.write_context(file, node, docker.NOTHING, "x86_64")
    with tarfile.open(fileobj=file) as archive:
        return {entry.name: entry for entry in archive}, lacking


def test_of_node_the_program_and_of_a_module_all_files_are_in_the_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("bin/node", "bin/npm", "LICENSE", "src/a.js"):
            archive.addfile(tarfile.TarInfo(f"package/{name}"))
    monkeypatch.setattr(npm, "module", lambda name, integrity: packed.getvalue())
    monkeypatch.setattr(npm, "NODE_MODULES", {"@scope/a@1.0": ""})
    entries, lacking = context()
    assert not lacking
    assert {name for name in entries if name.startswith("node")} == {
        "node",
        "node/bin/node",
        "node/share/doc/node/LICENSE",
    }
    assert "modules/@scope/a/src/a.js" in entries
    assert [name for name, entry in entries.items() if entry.isfile() and entry.mode & 0o111] == [
        "node/bin/node"
    ]
    assert [name for name in context(node=False)[0] if name.startswith(("node/", "modules/"))] == []


def test_an_image_has_the_build_of_node_that_the_table_names(contained: Sandbox) -> None:
    result = judge(contained, "js", "console.log(process.version)")
    if result.stdout.startswith("v18."):
        pytest.skip("the image has Debian's node: npm reached no registry")
    assert {name.rpartition("@")[2] for name, _ in NODE_BUILDS.values()} == {result.stdout.strip()[1:]}
    module = (
        "import fs from 'fs';\nconst [a] = await Promise.all([[3, 1].toSorted()]);\n"
        "console.log(fs.readFileSync(0, 'utf8').trim(), a.join());\n"
    )
    assert judge(contained, "js", module, (Case("x\n", "x 1,3\n"),)).verdict is Verdict.passed


def test_gold_links_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.libraries.PATH", str(tmp_path))
    linker.cache_clear()
    assert linker() == ""
    linker.cache_clear()
    gold = tmp_path / "ld.gold"
    gold.write_text("")
    gold.chmod(0o755)
    assert linker() == "-fuse-ld=gold"
    linker.cache_clear()
