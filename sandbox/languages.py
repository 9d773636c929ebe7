"""The languages, one row each: how a program is named, compiled, run and judged."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field

from sandbox.errors import UsageError
from sandbox.verdicts import MIB, Limits

PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where tools are looked for: a virtual environment of the caller's must not change verdicts."""

JAVATUPLES = "/usr/share/java/javatuples.jar"
NEVER = r"(?!)"
RULES_VERSION = 2  # raise it when judging changes in a way that the rows below do not show

_PY_COMPILE = "import sys; compile(open(sys.argv[1], 'rb').read(), 'main.py', 'exec')"
_PHP = ("php", "-d", "memory_limit={heap}M", "-d", "zend.assertions=1", "-d", "assert.exception=1")
_TSC = ("tsc", "--target", "es2020", "--module", "commonjs", "--skipLibCheck", "--typeRoots", "{dir}")
_JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
_JAVAC = tuple(f"-J{flag}" for flag in _JVM)
JAVAC_OPTIONS = ("-encoding", "UTF-8", "-cp", JAVATUPLES)
"""javac's own, whether it is started for one program or stays up."""


@dataclass(frozen=True)
class Language:
    """One language.

    In the argument vectors `{dir}` is the program's directory, `{entry}` the name of the file without its
    extension, `{heap}` the memory that a garbage-collected heap may take, in MiB, `{header}` the precompiled
    header's path. `end` prints `{marker}` on a line of its own. It goes after the tests, or before what
    `closing` matches at their end where the tests sit in `main`.
    `test_failed`, `out_of_memory`: what stderr of a failed run holds when a test failed, or memory ran out.
    `test_failed_code`: the exit code that means the same, where a failed test says nothing.
    `failed_on_stderr`: what stderr of a run with exit code 0 holds when a test failed.
    `syntax_check`: tells a parser's refusal from an error at run time; run only after a failure that speaks
    of syntax.
    `limit_address_space`: whether RLIMIT_AS can hold memory down; some runtimes reserve far more than they
    use.
    """

    name: str
    title: str
    file: str
    run: tuple[str, ...]
    tools: tuple[str, ...]
    versions: tuple[tuple[str, ...], ...]
    end: str
    compile: tuple[str, ...] | None = None
    syntax_check: tuple[str, ...] | None = None
    closing: str | None = None
    test_failed: str = NEVER
    out_of_memory: str = NEVER
    test_failed_code: int | None = None
    failed_on_stderr: str = NEVER
    files: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    limits: Limits = field(default_factory=Limits)
    limit_address_space: bool = True

    def rules(self) -> str:
        """A short digest of everything in this row that can change a verdict."""
        row = json.dumps([RULES_VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(row.encode()).hexdigest()[:8]


_NODE_TEST_FAILED = r"(?m)^(Uncaught )?AssertionError\b"
_NODE_OUT_OF_MEMORY = r"JavaScript heap out of memory|Array buffer allocation failed"
_NODE = ("node", "--max-old-space-size={heap}")

_ROWS = (
    Language(
        name="py",
        title="Python",
        file="main.py",
        run=("python3", "{dir}/main.py"),
        syntax_check=("python3", "-c", _PY_COMPILE, "{dir}/main.py"),
        tools=("python3",),
        versions=(("python3", "--version"),),
        end='print("\\n{marker}", flush=True)',
        test_failed=r"(?m)^AssertionError\b",
        out_of_memory=r"(?m)^MemoryError\b",
        env=(("PYTHONHASHSEED", "0"), ("PYTHONDONTWRITEBYTECODE", "1")),
    ),
    Language(
        name="cpp",
        title="C++",
        file="main.cpp",
        compile=("g++", "-std=c++17", "-include", "{header}", "{dir}/main.cpp", "-o", "{dir}/main"),
        run=("{dir}/main",),
        tools=("g++",),
        versions=(("g++", "--version"),),
        end='std::cout << "\\n{marker}" << std::endl;',
        closing=r"\}\s*$",
        test_failed=r"Assertion `.*' failed\.",
        out_of_memory=r"std::bad_alloc",
    ),
    Language(
        name="java",
        title="Java",
        file="{entry}.java",
        compile=(
            "javac",
            *_JAVAC,
            *JAVAC_OPTIONS,
            "-d",
            "{dir}",
            "{dir}/{entry}.java",
        ),
        run=("java", "-ea", *_JVM, "-Xmx{heap}m", "-cp", JAVATUPLES + ":{dir}", "{entry}"),
        tools=("javac", "java"),
        files=(JAVATUPLES,),
        versions=(("javac", "-version"), ("java", "--version")),
        end='System.out.println("\\n{marker}");',
        closing=r"\}\s*\}\s*$",
        test_failed=r"(?m)^Exception in thread .* java\.lang\.AssertionError\b",
        out_of_memory=r"java\.lang\.OutOfMemoryError",
        limit_address_space=False,
    ),
    Language(
        name="php",
        title="PHP",
        file="main.php",
        run=(*_PHP, "{dir}/main.php"),
        syntax_check=("php", "-l", "{dir}/main.php"),
        tools=("php",),
        versions=(("php", "--version"),),
        end='echo "\\n{marker}\\n";',
        test_failed=r"Uncaught (Exception: Test failed!|AssertionError)",
        out_of_memory=r"Allowed memory size of \d+ bytes exhausted|Out of memory",
    ),
    Language(
        name="ts",
        title="TypeScript",
        file="main.ts",
        compile=(*_TSC, "{dir}/main.ts"),
        run=(*_NODE, "{dir}/main.js"),
        tools=("tsc", "node"),
        versions=(("tsc", "--version"), ("node", "--version")),
        end='console.log("\\n{marker}");',
        test_failed=_NODE_TEST_FAILED,
        out_of_memory=_NODE_OUT_OF_MEMORY,
        limit_address_space=False,
        limits=Limits(compile_cpu_seconds=60.0),
    ),
    Language(
        name="cs",
        title="C#",
        file="main.cs",
        compile=("mcs", "-d:DEBUG", "-r:System.Numerics.dll", "-out:{dir}/main.exe", "{dir}/main.cs"),
        run=("mono", "{dir}/main.exe"),
        tools=("mcs", "mono"),
        versions=(("mcs", "--version"), ("mono", "--version")),
        end='System.Console.WriteLine("\\n{marker}");',
        closing=r"\}\s*\}\s*$",
        # A failed Debug.Assert goes to the trace listener and the program ends with exit code 0.
        env=(("MONO_TRACE_LISTENER", "Console.Error"), ("MONO_GC_PARAMS", "max-heap-size={heap}m")),
        failed_on_stderr=r"System\.Diagnostics\.Debug\.Assert",
        test_failed=r"System\.Diagnostics\.Debug\.Assert",
        out_of_memory=r"System\.OutOfMemoryException|Out of memory",
        limit_address_space=False,
    ),
    Language(
        name="sh",
        title="Bash",
        file="main.sh",
        run=("bash", "{dir}/main.sh"),
        syntax_check=("bash", "-n", "{dir}/main.sh"),
        tools=("bash",),
        versions=(("bash", "--version"),),
        end='printf "\\n%s\\n" "{marker}"',
        test_failed_code=1,  # `set -e` ends the script at the first [[ ... ]] that is false
        out_of_memory=r"cannot allocate",
    ),
    Language(
        name="js",
        title="JavaScript",
        file="main.js",
        run=(*_NODE, "{dir}/main.js"),
        syntax_check=("node", "--check", "{dir}/main.js"),
        tools=("node",),
        versions=(("node", "--version"),),
        end='console.log("\\n{marker}");',
        test_failed=_NODE_TEST_FAILED,
        out_of_memory=_NODE_OUT_OF_MEMORY,
        limit_address_space=False,
    ),
)

LANGUAGES: dict[str, Language] = {row.name: row for row in _ROWS}
"""By MultiPL-E's short name."""


def language(name: str) -> Language:
    """The row of `name`. Raises `UsageError` where there is none."""
    if name not in LANGUAGES:
        raise UsageError(f"unknown language {name!r}; known: {', '.join(LANGUAGES)}")
    return LANGUAGES[name]


_JAVA_MAIN = re.compile(r"\bstatic\s+void\s+main\s*\(")
_JAVA_CLASS = re.compile(r"^(?:public\s+|final\s+|abstract\s+)*class\s+(\w+)", re.MULTILINE)


def entry(row: Language, source: str) -> str:
    """The file name without its extension: in Java the class that holds `main`."""
    if row.name != "java":
        return "main"
    main = _JAVA_MAIN.search(source)
    classes = _JAVA_CLASS.findall(source, 0, main.start() if main else len(source))
    return classes[-1] if classes else "Problem"


def heap_mib(limits: Limits) -> int:
    """What a garbage-collected heap may take of `memory_bytes`: all but the runtime's own share."""
    mib = limits.memory_bytes // MIB
    return max(mib * 3 // 4, 16)
