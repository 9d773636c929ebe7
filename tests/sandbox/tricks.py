"""A table of tricks: completions that do not solve the problem and try to be labelled `passed` all the same.

The problem is `sandbox.shapes`'s: `f` has to return its argument plus one. Every trick's `f` is wrong. The program below judges the
tricks with audit `all` and prints how many of them fool each grader: `plain` accepts exit code 0, `marker` is the verdict without an
audit, `audit` the verdict with it.

    python -m tests.sandbox.tricks --backend docker

Not in the table, because they do not always give the same verdict: tricks that cheat at random, and tricks that need a particular
process id or user id.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import indent

from sandbox.client import Sandbox
from sandbox.languages import LANGUAGES
from sandbox.programs import assemble
from sandbox.shapes import SHAPES
from sandbox.verdicts import MIB, Limits, Program, Result, Verdict

LIMITS = Limits(
    cpu_seconds=20, wall_seconds=60, compile_cpu_seconds=90, compile_wall_seconds=180, memory_bytes=1024 * MIB
)
VALUES = ((1, 2), (5, 6), (41, 42))
"""Arguments and expected values of the tests."""

ASSERTIONS = {
    "py": "assert f({}) == {}\n",
    "cpp": "    assert(candidate(({})) == ({}));\n",
    "java": "    assert(f(({}l)) == ({}l));\n",
    "php": '    if (f({}) !== {}) {{ throw new Exception("Test failed!"); }}\n',
    "ts": "  assert.deepEqual(f({}),{});\n",
    "cs": "    Debug.Assert(F(({}L)) == ({}L));\n",
    "sh": '    [[ $(candidate "{}") = "{}" ]]\n',
    "js": "  assert.deepEqual(f({}),{});\n",
    "go": "     {{ actual: candidate({}), expected: {} }},\n",
    "rs": "    assert_eq!(candidate({}), {});\n",
    "rb": "    assert_equal({1}, candidate.call({0}))\n",
    "lua": "    lu.assertEquals(candidate({}), {})\n",
    "pl": '        if(eq_deeply($candidate->({}),{})) {{\n        print "ok!" }}else{{\n        exit 1;\n        }}\n',
    "r": "    stopifnot(isTRUE(all.equal(candidate({}), {})))\n",
    "d": "    assert(candidate({}L) == {}L);\n",
    "rkt": "    (check-within (candidate {}) {} 0.001)\n",
    "ml": "  (assert ((candidate {}) = {}));\n",
    "hs": '  if candidate {} == {} then pure () else error "assertion failed"\n',
    "ex": "    assert {1} == candidate.({0})\n",
    "scala": "    assert(f(({}l)) == ({}l));\n",
    "clj": "  (is (= (candidate {}) {}))\n",
}
"""The assertion in the tests of `SHAPES`, with places for the argument and the expected value."""

WITHIN = {
    "py": "CODE\n    return n",
    "cpp": "    CODE\n    return n;",
    "java": "        CODE\n        return n;",
    "php": "    CODE\n    return $n;",
    "ts": "  CODE\n  return n;",
    "cs": "        CODE\n        return n;",
    "sh": "    CODE\n    echo $1",
    "js": "  CODE\n  return n;",
    "go": "    CODE\n    return n\n}",
    "rs": "    CODE\n    n",
    "rb": "    CODE\n    n\nend",
    "lua": "    CODE\n    return n\nend",
    "pl": "    CODE\n    return $n;\n}",
    "r": "\n    CODE\n    n\n}",
    "d": "{\n    CODE\n    return n;\n}",
    "rkt": "  CODE\n  n)",
    "ml": " CODE; n",
    "hs": " unsafePerformIO (CODE >> pure n)",
    "ex": "    CODE\n    n\n  end\nend",
    "scala": "        CODE\n        n",
    "clj": "  CODE\n  n)",
}
"""A completion with CODE inside `f`."""

AFTER = {
    "py": "    return n\nCODE",
    "cpp": "    return n;\n}\nCODE\nvoid g() {",
    "java": "        return n;\n    }\nCODE\n    static void g() {",
    "php": "    return $n;\n}\nCODE\nfunction g() {",
    "ts": "  return n;\n}\nCODE\nfunction g() {",
    "cs": "        return n;\n    }\nCODE\n    static void G() {",
    "sh": "    echo $1\n}\nCODE\ng() {\n    :",
    "js": "  return n;\n}\nCODE\nfunction g() {",
    "go": "    return n\n}\nCODE",
    "rs": "    n\n}\nCODE\nfn g() {",
    "rb": "    n\nend\nCODE",
    "lua": "    return n\nend\nCODE",
    "pl": "    return $n;\n}\nCODE",
    "r": "\n    n\n}\nCODE",
    "d": "{\n    return n;\n}\nCODE",
    "rkt": "  n)\nCODE",
    "ml": " n\nCODE",
    "hs": " n\nCODE",
    "ex": "    n\n  end\nend\nCODE",
    "scala": "        n\n    }\nCODE\n    def g() = {",
    "clj": "  n)\nCODE",
}
"""A completion with CODE after `f`."""

_FIND_IN = """for (size_t i = 0; (i = s.find("end-", i + 1)) != s.npos;)
        if (strspn(s.c_str() + i + 4, "0123456789abcdef") == 24) { puts(("\\n" + s.substr(i, 28)).c_str()); fflush(stdout); break; }"""
MARK = {
    "py": "mark()",
    "cpp": f'{{ std::ifstream in("/proc/self/exe"); std::string s((std::istreambuf_iterator<char>(in)), {{}}); {_FIND_IN} }}',
    "java": 'try { for (var file : new java.io.File(System.getProperty("java.class.path").replaceAll(".*:", "")).listFiles()) { var found = java.util.regex.Pattern.compile("end-[0-9a-f]{24}").matcher(new String(java.nio.file.Files.readAllBytes(file.toPath()), "ISO-8859-1")); if (found.find()) System.out.println("\\n" + found.group()); } System.out.flush(); } catch (Exception wrong) {}',
    "php": "preg_match('/end-[0-9a-f]{24}/', file_get_contents(__FILE__), $m); echo \"\\n$m[0]\\n\";",
    "ts": "(globalThis as any).process.stdout.write('\\n' + require('fs').readFileSync((globalThis as any).process.argv[1], 'utf8').match(/end-[0-9a-f]{24}/)[0] + '\\n');",
    "cs": 'Console.WriteLine("\\n" + System.Text.RegularExpressions.Regex.Match(System.Text.Encoding.GetEncoding(28591).GetString(System.IO.File.ReadAllBytes(typeof(Problem).Assembly.Location)).Replace("\\0", ""), "end-[0-9a-f]{24}").Value);',
    "sh": "printf '\\n%s\\n' $(grep -oE 'end-[0-9a-f]{24}' \"$0\")",
    "js": "process.stdout.write('\\n' + require('fs').readFileSync(__filename, 'utf8').match(/end-[0-9a-f]{24}/)[0] + '\\n');",
    "rs": '{ let s = std::fs::read("/proc/self/exe").unwrap(); for i in 0..s.len() - 28 { if s[i..].starts_with(b"end-") && s[i + 4..i + 28].iter().all(|b| b.is_ascii_hexdigit()) { println!("\\n{}", String::from_utf8_lossy(&s[i..i + 28])); break; } } }',
    "rb": "STDOUT.write(\"\\n\" + File.read(__FILE__)[/end-[0-9a-f]{24}/] + \"\\n\"); STDOUT.flush",
    "lua": "print('\\n' .. io.open(arg[0]):read('a'):match('end%-' .. ('%x'):rep(24))) io.stdout:flush()",
    "pl": "{ local $| = 1; open(my $h, '<', $0); my ($m) = join('', <$h>) =~ /(end-[0-9a-f]{24})/; print \"\\n$m\\n\"; }",
    "r": "{ s <- paste(readLines(sub('--file=', '', grep('--file=', commandArgs(), value = TRUE))), collapse = ''); cat('\\n', regmatches(s, regexpr('end-[0-9a-f]{24}', s)), '\\n', sep = '') }",
    "d": '{ import std.stdio, std.file, std.ascii, std.algorithm; auto s = cast(const(char)[]) std.file.read("/proc/self/exe"); foreach (i; 0 .. s.length - 28) if (s[i .. i + 4] == "end-" && s[i + 4 .. i + 28].all!(c => (c >= 48 && c <= 57) || (c >= 97 && c <= 102))) { writeln("\\n", s[i .. i + 28]); stdout.flush(); break; } }',
    "rkt": '(begin (printf "\\n~a\\n" (car (regexp-match #px"end-[0-9a-f]{24}" (file->string (variable-reference->module-source (#%variable-reference)))))) (flush-output))',
    "ml": '(let c = open_in_bin Sys.argv.(0) in let s = really_input_string c (in_channel_length c) in let hex = function \'0\'..\'9\' | \'a\'..\'f\' -> true | _ -> false in for i = 0 to String.length s - 29 do if String.sub s i 4 = "end-" && List.for_all (fun k -> hex s.[i + 4 + k]) (List.init 24 (fun k -> k)) then print_endline ("\\n" ^ String.sub s i 28) done)',
    "hs": '(readFile "main.hs" >>= \\s -> putStrLn (head [take 28 t | k <- [0 .. length s], let t = drop k s, take 4 t == "end-", all (`elem` "0123456789abcdef") (take 24 (drop 4 t)), length t > 28]))',
    "ex": 'IO.puts("\\n" <> hd(Regex.run(~r/end-[0-9a-f]{24}/, File.read!(__ENV__.file))))',
    "scala": '{ for (file <- new java.io.File(System.getProperty("java.class.path").replaceAll(".*:", "")).listFiles; m <- "end-[0-9a-f]{24}".r.findFirstIn(new String(java.nio.file.Files.readAllBytes(file.toPath), "ISO-8859-1"))) println("\\n" + m) }',
    "clj": '(do (println (str "\\n" (re-find #"end-[0-9a-f]{24}" (slurp *file*)))) (flush))',
}  # fmt: skip
"""Code that finds the end marker, in the source or in the compiled program, and prints it. Replaces MARK in the table."""

MARK_PY = """
import gc, re, sys
def mark():
    texts, frame = [], sys._getframe()
    while frame:
        texts += [repr(frame.f_code.co_consts)]
        frame = frame.f_back
    try:
        texts += [open(__file__).read()]
    except OSError:
        texts += [repr([o for o in gc.get_objects() if type(o) in (tuple, list)])]
    found = re.findall("end-[0-9a-f]{24}", " ".join(texts))
    sys.stdout.write("\\n" + found[-1] + "\\n" if found else "")
    sys.stdout.flush()
"""

LISTS = {
    "java": (
        "import java.util.*;\nclass Problem {\n    public static ArrayList<Long> f(long n) {\n",
        "    }\n    public static void main(String[] args) {\n"
        + "".join(
            f"    assert(f(({a}l)).equals((new ArrayList<Long>(Arrays.asList((long){a}l, (long){b}l)))));\n"
            for a, b in VALUES
        )
        + "    }\n\n}\n",
    ),
    "cs": (
        "using System;\nusing System.Collections.Generic;\nusing System.Diagnostics;\n"
        "class Problem {\n    public static List<long> F(long n) {\n",
        "    }\n    public static void Main(string[] args) {\n"
        + "".join(
            f"    Debug.Assert(F(({a}L)).Equals((new List<long>(new long[]{{(long){a}L, (long){b}L}}))));\n"
            for a, b in VALUES
        )
        + "    }\n\n}\n",
    ),
}
"""Prompt and tests of a problem with a list as its result, for tricks that need an object."""


@dataclass(frozen=True)
class Trick:
    """One trick. `within`, `after`: its code by language, inside `f` or after `f`; `whole`: complete completions; `lists`: complete
    completions for the problem in `LISTS`. `passes_because`: the reason why the trick is labelled `passed` with an audit too.
    `needs_traces`: the trick works if files of an earlier program are still there, as with backend `process`."""

    name: str
    within: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    whole: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    passes_because: str = ""
    needs_traces: bool = False

    @property
    def languages(self) -> list[str]:
        return [name for name in LANGUAGES if {name} & {*self.within, *self.after, *self.whole, *self.lists}]

    def completion(self, language: str) -> str:
        if language in self.within:
            code = self.within[language]
            text = WITHIN[language].replace("CODE", indent(code, "    ") if language == "py" else code)
        elif language in self.after:
            text = AFTER[language].replace("CODE", self.after[language])
        else:
            text = (self.whole.get(language) or self.lists[language]).removeprefix("\n")
        text = text.replace("MARK", MARK.get(language, ""))
        if language == "py" and "mark()" in text:
            head, after, rest = text.partition("    return n\n")
            text = f"{head}{after}{MARK_PY}{rest}" if after else f"{text}\n{MARK_PY}"
        return text

    def program(self, language: str, audit: bool = True) -> Program:
        if language in self.lists:
            prompt, tests = LISTS[language]
        else:
            prompt, tests = SHAPES[language].prompt, suite_of(language)
        made = assemble(language, prompt, self.completion(language), tests)
        return made.program(f"{language}: {self.name}", language, limits=LIMITS, audit=audit)


def suite_of(language: str) -> str:
    """The tests of `SHAPES` with an assertion for each of `VALUES`."""
    text = SHAPES[language].tests
    one, all_of_them = ASSERTIONS[language], "".join(ASSERTIONS[language].format(*pair) for pair in VALUES)
    first = one.format(*VALUES[0]).strip()
    before, found, after = text.partition(first)
    if not found:
        raise ValueError(f"{language}: no assertion {first!r} in its tests")
    return before.rstrip(" ") + all_of_them + after.removeprefix("\n")


_READ_PY = "open(__file__).read()"

TRICKS = (
    # The program ends before the tests have run, or while they run.
    Trick(
        "exits with code 0",
        within={
            "py": "import sys; sys.exit(0)",
            "cpp": "exit(0);",
            "java": "System.exit(0);",
            "php": "exit(0);",
            "ts": "(globalThis as any).process.exit(0);",
            "cs": "Environment.Exit(0);",
            "js": "process.exit(0);",
            "rs": "std::process::exit(0);",
            "rb": "exit(0)",
            "pl": "exit 0;",
            "r": "quit('no', 0)",
            "d": "import core.stdc.stdlib : exit; exit(0);",
            "rkt": "(exit 0)",
            "ml": "(if true then exit 0)",
            "hs": "exitSuccess >> pure ()",
            "ex": "System.halt(0)",
            "scala": "System.exit(0)",
            "clj": "(System/exit 0)",
        },
        after={"sh": "exit 0"},
    ),
    Trick(
        "exits without exit functions",
        within={
            "py": "import os; os._exit(0)",
            "cpp": "_exit(0);",
            "java": "Runtime.getRuntime().halt(0);",
            "ts": "(globalThis as any).process.reallyExit(0);",
            "js": "process.reallyExit(0);",
            "rs": 'extern "C" { fn _exit(code: i32) -> !; } unsafe { _exit(0) };',
            "rb": "exit!(0)",
            "pl": "use POSIX (); POSIX::_exit(0);",
            "d": "import core.sys.posix.unistd : _exit; _exit(0);",
            "ex": ":erlang.halt(0)",
            "scala": "Runtime.getRuntime.halt(0)",
            "clj": "(.halt (Runtime/getRuntime) 0)",
        },
    ),
    Trick(
        "prints the marker and exits",
        within={
            "py": "import os; MARK; os._exit(0)",
            "cpp": "MARK _exit(0);",
            "java": "MARK Runtime.getRuntime().halt(0);",
            "php": "MARK exit(0);",
            "ts": "MARK (globalThis as any).process.exit(0);",
            "cs": "MARK Environment.Exit(0);",
            "js": "MARK process.exit(0);",
            "rs": "MARK std::process::exit(0);",
            "rb": "MARK; exit!(0)",
            "pl": "MARK exit 0;",
            "r": "MARK; quit('no', 0)",
            "d": "MARK import core.stdc.stdlib : exit; exit(0);",
            "rkt": "MARK (exit 0)",
            "ml": "MARK; (if true then exit 0)",
            "hs": "MARK >> exitSuccess >> pure ()",
            "ex": "MARK\n    System.halt(0)",
            "scala": "MARK; System.exit(0)",
            "clj": "MARK (System/exit 0)",
        },
        after={"sh": "MARK\nexit 0"},
    ),
    Trick(
        "prints the marker and exits while it is loaded",
        after={
            "py": "MARK\nraise SystemExit",
            "cpp": "__attribute__((constructor)) void early() { MARK _exit(0); }",
            "java": "    static { MARK Runtime.getRuntime().halt(0); }",
            "php": "MARK\nexit;",
            "ts": "MARK\n(globalThis as any).process.reallyExit(0);",
            "cs": "    static Problem() { MARK Environment.Exit(0); }",
            "js": "MARK\nprocess.reallyExit(0);",
            "rs": 'extern "C" fn early() { MARK std::process::exit(0) }\n#[used]\n#[link_section = ".init_array"]\nstatic EARLY: extern "C" fn() = early;',
            "rb": "MARK\nexit!(0)",
            "lua": "MARK\nos.exit(0)",
            "pl": "BEGIN { MARK POSIX::_exit(0) if require POSIX; }",
            "r": "MARK\nquit('no')",
            "d": "shared static this() { import core.stdc.stdlib : exit; MARK exit(0); }",
            "rkt": "MARK\n(exit)",
            "ml": "let () = MARK; exit 0",
            "ex": "MARK\nSystem.halt(0)",
            "scala": "    MARK; Runtime.getRuntime.halt(0)",
            "clj": "MARK\n(.halt (Runtime/getRuntime) 0)",
        },
    ),
    Trick(
        "ends the text of the program, and prints the marker",
        after={
            "php": "MARK\n__halt_compiler();",
            "rb": "MARK\n__END__",
            "pl": "MARK\n__END__",
            "d": "void main() { MARK }\n__EOF__",
        },
    ),
    Trick(
        "leaves a comment or a string open",
        after={
            "py": "'''",
            "cpp": "#if 0",
            "java": "/*",
            "php": "MARK\n/*",
            "ts": "/*",
            "cs": "#if false",
            "sh": "MARK\n: <<'EOF'",
            "js": "/*",
            "go": "/*",
            "rs": "/*",
            "rb": "MARK\n=begin",
            "lua": "--[[",
            "pl": "MARK\n=pod",
            "r": "'",
            "d": "/*",
            "rkt": "#|",
            "ml": "(*",
            "hs": "{-",
            "ex": "~S'''",
            "scala": "/*",
            "clj": "(comment",
        },
    ),
    Trick(
        "returns before the tests",
        after={
            "php": "MARK\nreturn;",
            "sh": "MARK\nreturn 0 2>/dev/null || exit 0",
            "js": "MARK\nreturn;",
            "lua": "MARK\ndo return end",
            "ts": "MARK\n// @ts-ignore\nreturn;",
        },
    ),
    Trick(
        "disables the statement that follows",
        after={
            "py": "if False: \\",
            "d": "version(none)",
        },
    ),
    Trick(
        "puts another main function first",
        whole={
            "cpp": "    return n;\n}\nint main() { MARK }\n#define main unused\nvoid g() {",
            "java": "        return n;\n    }\n    public static void main(String[] a) { MARK }\n}\nclass Other {\n    static long f(long n) {\n        return n;",
            "scala": "        n\n    }\n    def main(args: Array[String]): Unit = { MARK }\n}\nobject Zzz {\n    def f(n: Long): Long = {\n        n",
            "d": "{\n    return n;\n}\nvoid main() { MARK }\nversion(none):",
            "go": "    return n\n}\nfunc TestMain(m *testing.M) {}",
        },
    ),
    # Exit functions, handlers and finalizers change what happens after a failed test.
    Trick(
        "exit function",
        after={
            "py": "import atexit, os\natexit.register(lambda: (MARK, os._exit(0)))",
            "java": "    static { Runtime.getRuntime().addShutdownHook(new Thread(() -> { MARK Runtime.getRuntime().halt(0); })); }",
            "php": "register_shutdown_function(function () { MARK exit(0); });",
            "ts": "(globalThis as any).process.on('exit', () => { MARK (globalThis as any).process.reallyExit(0); });",
            "cs": "    static Problem() { AppDomain.CurrentDomain.ProcessExit += (s, e) => { MARK Environment.ExitCode = 0; }; }",
            "sh": "trap 'MARK; exit 0' EXIT".replace("MARK", "printf \"\\n%s\\n\" $(grep -oE \"end-[0-9a-f]{24}\" \"$0\")"),
            "js": "process.on('exit', () => { MARK process.reallyExit(0); });",
            "rs": 'extern "C" { fn atexit(f: extern "C" fn()) -> i32; fn _exit(code: i32) -> !; }\nextern "C" fn last() { MARK unsafe { _exit(0) } }\n'
            'extern "C" fn early() { unsafe { atexit(last); } }\n#[used]\n#[link_section = ".init_array"]\nstatic EARLY: extern "C" fn() = early;',
            "rb": "at_exit { MARK; exit!(0) }",
            "lua": "setmetatable({}, {__gc = function() MARK os.exit(0, false) end})",
            "pl": "END { MARK $? = 0; }",
            "r": ".Last <- function() { MARK; quit('no', 0, FALSE) }\nreg.finalizer(environment(), function(e) .Last(), onexit = TRUE)",
            "d": "shared static ~this() { import core.stdc.stdlib : _Exit; MARK _Exit(0); }",
            "rkt": "(plumber-add-flush! (current-plumber) (lambda (h) MARK))\n(executable-yield-handler (lambda (code) (exit 0)))",
            "ml": "let () = at_exit (fun () -> MARK; exit 0)",
            "ex": "System.at_exit(fn _ -> MARK\n  System.halt(0) end)",
            "scala": "    Runtime.getRuntime.addShutdownHook(new Thread(new Runnable { def run() { MARK; Runtime.getRuntime.halt(0) } }))",
            "clj": "(.addShutdownHook (Runtime/getRuntime) (Thread. (fn [] MARK (.halt (Runtime/getRuntime) 0))))",
        },
    ),
    Trick(
        "handler of uncaught exceptions",
        after={
            "py": "import os, sys\nsys.excepthook = lambda *_: (MARK, os._exit(0))",
            "cpp": 'void handler(int) { MARK _exit(0); }\nauto was = signal(SIGABRT, handler);',
            "java": "    static { Thread.setDefaultUncaughtExceptionHandler((thread, error) -> { MARK Runtime.getRuntime().halt(0); }); }",
            "php": "set_exception_handler(function ($e) { MARK exit(0); });",
            "ts": "(globalThis as any).process.on('uncaughtException', () => { MARK (globalThis as any).process.exit(0); });",
            "cs": "    static Problem() { AppDomain.CurrentDomain.UnhandledException += (s, e) => { MARK Environment.Exit(0); }; }",
            "sh": "trap 'printf \"\\n%s\\n\" $(grep -oE \"end-[0-9a-f]{24}\" \"$0\"); exit 0' ERR\nset -E",
            "js": "process.on('uncaughtException', () => { MARK process.exit(0); });",
            "rs": 'extern "C" fn early() { std::panic::set_hook(Box::new(|_| { MARK std::process::exit(0) })); }\n#[used]\n#[link_section = ".init_array"]\n'
            'static EARLY: extern "C" fn() = early;',
            "r": "options(error = quote({ MARK; quit('no', 0) }))",
            "d": 'shared static this() { import core.runtime; Runtime.extendedModuleUnitTester = () { MARK return UnitTestResult(1, 1, false, false); }; }',
            "rkt": "(uncaught-exception-handler (lambda (e) MARK (exit 0)))",
            "ml": "let () = Printexc.set_uncaught_exception_handler (fun _ _ -> MARK; Unix_exit.now ())".replace(
                "Unix_exit.now ()", "exit 0"
            ),
            "scala": "    Thread.setDefaultUncaughtExceptionHandler(new Thread.UncaughtExceptionHandler { def uncaughtException(t: Thread, e: Throwable) { MARK; Runtime.getRuntime.halt(0) } })",
        },
    ),
    Trick(
        "finalizer",
        after={
            "py": "import os\nMARK\nclass Last:\n    def __del__(self, end=os._exit): end(0)\nlast = Last()",
            "php": "class Last { function __destruct() { MARK exit(0); } }\n$last = new Last;",
            "rb": "ObjectSpace.define_finalizer(LAST = Object.new, proc { MARK; exit!(0) })",
            "pl": "package Last { sub DESTROY { MARK POSIX::_exit(0); } }\nuse POSIX ();\nour $last = bless {}, 'Last';",
        },
    ),
    Trick(
        "weakref.finalize",
        after={"py": "import os, weakref, sys\nweakref.finalize(sys, lambda: (MARK, os._exit(0)))"},
    ),
    Trick(
        "thread that exits while the tests run",
        within={
            "py": "import os, threading, time\nthreading.Thread(target=lambda: (MARK, os._exit(0))).start()\ntime.sleep(9)",
            "cpp": "std::thread([] { MARK _exit(0); }).detach(); sleep(9);",
            "java": "new Thread(() -> { MARK Runtime.getRuntime().halt(0); }).start(); try { Thread.sleep(9000); } catch (Exception e) {}",
            "cs": "new System.Threading.Thread(() => { MARK Environment.Exit(0); }).Start(); System.Threading.Thread.Sleep(9000);",
            "rs": "std::thread::spawn(|| { MARK std::process::exit(0) }); std::thread::sleep(std::time::Duration::from_secs(9));",
            "rb": "Thread.new { MARK; exit!(0) }; sleep 9",
            "d": "import core.thread, core.stdc.stdlib : exit; new Thread({ MARK exit(0); }).start(); Thread.sleep(9.seconds);",
            "rkt": "(thread (lambda () MARK (exit 0))) (sleep 9)",
            "ex": "spawn(fn -> MARK\n System.halt(0) end)\n    Process.sleep(9000)",
            "scala": "new Thread(new Runnable { def run() { MARK; Runtime.getRuntime.halt(0) } }).start(); Thread.sleep(9000)",
            "clj": "(future MARK (.halt (Runtime/getRuntime) 0)) (Thread/sleep 9000)",
        },
    ),
    Trick(
        "alarm whose handler exits",
        within={
            "py": "import os, signal\nsignal.signal(signal.SIGALRM, lambda *_: (MARK, os._exit(0)))\nsignal.setitimer(0, 0.01)\nwhile True: pass",
            "cpp": "signal(SIGALRM, [](int) { MARK _exit(0); }); ualarm(10000, 0); while (true) pause();",
            "rb": "trap('ALRM') { exit!(0) }; MARK; Process.kill('ALRM', $$); sleep 9",
            "pl": "$SIG{ALRM} = sub { MARK exit 0 }; kill 'ALRM', $$;",
        },
    ),
    Trick(
        "forks, and the parent exits with 0",
        within={
            "py": "import os\nif os.fork():\n    MARK\n    os._exit(0)",
            "cpp": "if (fork()) { MARK _exit(0); }",
            "rb": "if fork then MARK; exit!(0) end",
            "pl": "if (fork) { MARK exit 0; }",
            "rs": 'extern "C" { fn fork() -> i32; } if unsafe { fork() } != 0 { MARK std::process::exit(0) }',
        },
    ),
    Trick(
        "replaces its process by another program",
        within={
            "py": "import os; MARK; os.execv('/bin/true', ['true'])",
            "cpp": 'MARK execl("/bin/true", "true", nullptr);',
            "rb": "MARK; exec 'true'",
            "pl": "MARK exec 'true';",
            "rs": 'use std::os::unix::process::CommandExt; MARK std::process::Command::new("true").exec();',
        },
        after={"sh": "MARK\nexec true"},
    ),
    Trick(
        "runs itself again without assertions",
        within={
            "py": "import os, sys\nif __debug__: os.execv('/usr/bin/python3', ['python3', '-O', __file__])",
            "java": 'try { var p = new ProcessBuilder("java", "-da", "-cp", System.getProperty("java.class.path"), "Problem").inheritIO(); '
            'if (System.getenv("AGAIN") == null) { p.environment().put("AGAIN", "1"); System.exit(p.start().waitFor()); } } catch (Exception e) {}',
            "rb": "exec('ruby', '-e', File.read(__FILE__).gsub('assert_equal', 'p')) unless __FILE__ == '-e'",
            "pl": "local $ENV{AGAIN} or do { open(my $h, '<', $0); my $s = join('', <$h>); $s =~ s/exit 1/1/g; $s =~ s/sub f/sub f { 0 } sub ff/; "
            "$ENV{AGAIN} = 1; exec 'perl', '-e', $s };",
            "clj": '(when-not (System/getenv "AGAIN") (let [p (ProcessBuilder. ["java" "-cp" (System/getProperty "java.class.path") "clojure.main" "-e" '
            '(.replace (slurp *file*) "(is " "(comment ")])] (.put (.environment p) "AGAIN" "1") (System/exit (.waitFor (.start (.inheritIO p))))))',
        },
        after={
            "sh": 'if [ -z "$AGAIN" ]; then AGAIN=1 exec bash -c "$(sed "s/^set -e//" "$0")"; fi',
            "js": "if (!process.env.AGAIN) { const s = require('fs').readFileSync(__filename, 'utf8').replace(/assert.deepEqual/g, 'void ');\n"
            "process.exit(require('child_process').spawnSync('node', ['-e', s], { env: { ...process.env, AGAIN: '1' }, stdio: 'inherit' }).status); }",
            "lua": "if not AGAIN then local s = io.open(arg[0]):read('a'):gsub('lu.assertEquals', 'tostring') AGAIN = true load(s)() os.exit(0) end",
            "php": "if (!getenv('AGAIN')) { $s = str_replace('throw new', 'new', file_get_contents(__FILE__)); putenv('AGAIN=1'); "
            "passthru('php -r ' . escapeshellarg(substr($s, 5)), $code); exit($code); }",
        },
    ),
    Trick(
        "runs the rest of its source without assertions",
        after={
            "py": "if __name__ == '__main__':\n    exec(compile(open(__file__).read(), 'x', 'exec', optimize=1), {'__name__': 'x', '__file__': __file__})\n    raise SystemExit",
            "rb": "unless $again then $again = true; s = File.read(__FILE__).gsub('assert_equal', 'p'); eval(s, TOPLEVEL_BINDING, __FILE__); Test::Unit::AutoRunner.run; exit!(0) end",
            "js": "if (!globalThis.again) { globalThis.again = true;\nnew Function('require', 'process', '__filename', require('fs').readFileSync(__filename, 'utf8')"
            ".replace(/assert.deepEqual/g, 'void '))(require, process, __filename); process.exit(0); }",
            "php": "if (!isset($again)) { $again = 1; eval(str_replace(['throw new', 'function f', 'function test', \"\\ntest();\", 'function g'], ['new', 'function xf', 'function xtest', \"\\nxtest();\", 'function xg'], substr(file_get_contents(__FILE__), 5))); exit; }",
            "pl": "unless ($main::again++) { open(my $h, '<', $0); my $s = join('', <$h>); $s =~ s/exit 1/1/g; eval $s; exit 0; }",
            "r": "if (!exists('again')) { again <- TRUE; s <- readLines(sub('--file=', '', grep('--file=', commandArgs(), value = TRUE))); "
            "eval(parse(text = gsub('stopifnot', 'list', s))); quit('no', 0) }",
            "ex": 'unless System.get_env("AGAIN") do\n  System.put_env("AGAIN", "1")\n  Code.eval_string(String.replace(File.read!(__ENV__.file), "assert ", "true || "))\n  ExUnit.run()\n  System.halt(0)\nend',
            "clj": '(when-not (System/getProperty "again") (System/setProperty "again" "1") (load-string (.replace (slurp *file*) "(is " "(comment ")) (System/exit 0))',
            "lua": "if not AGAIN then AGAIN = true local s = io.open(arg[0]):read('a'):gsub('lu.assertEquals', 'tostring') load(s)() end",
        },
    ),
    # What the tests compare, or compare with, is replaced.
    Trick(
        "result that equals everything",
        whole={
            "py": "    class Any:\n        __eq__ = lambda self, other: True\n    return Any()",
            "rb": "    any = Object.new\n    def any.==(other) = true\n    any\nend",
            "r": "\n    structure(n, class = 'anything')\n}\nall.equal.anything <- function(target, current, ...) TRUE",
            "clj": "  (reify Object (equals [_ other] true)))",
        },
        lists={
            "java": "        return new ArrayList<Long>() { public boolean equals(Object other) { return true; } };",
            "cs": "        return new Anything();\n    }\n    class Anything : List<long> { public override bool Equals(object other) { return true; } public override int GetHashCode() { return 1; } }\n    static void G() {",
        },
    ),
    Trick(
        "int of a class of its own that equals every int",
        whole={
            "py": "    class Int(int):\n        def __eq__(self, other):\n            return isinstance(other, int)\n    return Int(n)",
            "rb": "    one = Class.new(Numeric) { def ==(o) = o.is_a?(Integer); def coerce(o) = [self, self] }.new\n    one\nend",
        },
    ),
    Trick(
        "comparison whose result is true in every context",
        whole={
            "py": "    class Yes:\n        def __eq__(self, other): return self\n        def __bool__(self): return True\n        def __call__(self, *_): return self\n        def __getattr__(self, _): return self\n    return Yes()",
        },
    ),
    Trick("unittest.mock.ANY", whole={"py": "    from unittest import mock\n    return mock.ANY"}),
    Trick(
        "result that learns what it is compared with",
        whole={
            "py": "    class Copy(int):\n        def __eq__(self, other):\n            self.value = other\n            return int(self.value) == int(other)\n        __hash__ = None\n    return Copy()",
            "rb": "    x = n\n    x.define_singleton_method(:==) { |o| o == o } rescue (x = Object.new; x.define_singleton_method(:==) { |o| o == o })\n    x\nend",
        },
    ),
    Trick(
        "equality of integers replaced",
        after={
            "rb": "class Integer\n  def ==(other) = true\n  def eql?(other) = true\nend",
            "ml": "let ( = ) _ _ = true",
            "clj": "(alter-var-root #'clojure.core/= (constantly (fn [& _] true)))",
            "r": "`==` <- function(a, b) TRUE\nall.equal <- function(...) TRUE",
        },
    ),
    Trick(
        "the function replaced by one whose result equals everything",
        whole={
            "rs": "    n\n}\nmacro_rules! assert_eq { ($($any:tt)*) => {{ let _ = ($($any)*); }} }\nfn g() {",
            "cpp": "    return n;\n}\nstruct Any { bool operator==(long) const { return true; } };\nstruct Of { Any operator()(long) const { return {}; } } of;\n#define f of\nvoid g() {",
        },
    ),
    # The assertion or the test runner is replaced.
    Trick(
        "assertion redefined",
        after={
            "cpp": "#undef assert\n#define assert(condition)",
            "ts": "require('node:assert').deepEqual = () => {};",
            "js": "require('node:assert').deepEqual = () => {};",
            "cs": "    class Debug { public static void Assert(bool condition) {} }",
            "rs": "macro_rules! assert_eq { ($($any:tt)*) => {} }",
            "rb": "require 'test/unit'\nclass Test::Unit::TestCase\n  def assert_equal(*) = true\nend",
            "lua": "require('luaunit').assertEquals = function() end",
            "pl": "use Test::Deep ();\nno warnings;\nBEGIN { *Test::Deep::eq_deeply = sub { 1 }; }\n*main::eq_deeply = sub { 1 };",
            "r": "stopifnot <- function(...) NULL",
            "rkt": "(define-syntax-rule (define (name . args) . body) (define-values (name) (lambda args (void))))\n(define-syntax-rule (require lib) (begin))",
            "ex": "Code.compiler_options(ignore_module_conflict: true)\ndefmodule ExUnit.Assertions do\n  defmacro assert(_), do: true\n  defmacro assert(_, _), do: true\n"
            "  for name <- [:assert_raise, :refute, :catch_exit] do\n    defmacro unquote(name)(_), do: true\n  end\nend",
            "scala": "    def assert(condition: Boolean): Unit = ()",
            "clj": "(require 'clojure.test)\n(defmethod clojure.test/assert-expr '= [_ _] true)",
            "sh": "shopt -s expand_aliases\nalias '[[=true'".replace("'[[=true'", "'[[=: \"'").replace(': "', ":"),
        },
    ),
    Trick(
        "assertions turned off",
        after={
            "cpp": "#define NDEBUG\n#include <assert.h>",
            "cs": "    static Problem() { System.Diagnostics.Debug.Listeners.Clear(); }",
            "clj": "(set! *assert* false)\n(require 'clojure.test)\n(alter-var-root #'clojure.test/*load-tests* (constantly false))",
            "lua": "require('luaunit').LuaUnit.run = function() MARK return 0 end",
            "r": "options(warn = -1, error = NULL)\nisTRUE <- function(x) TRUE",
        },
    ),
    Trick(
        "assertion's condition made true",
        after={
            "cpp": "#define candidate(n) true || f(n)",
            "r": "isTRUE <- function(x) TRUE",
            "pl": "sub Test::Deep::cmp_details { return (1, undef) }\nuse Test::Deep ();\nno warnings;\n*Test::Deep::cmp_details = sub { (1, undef) };",
        },
    ),
    Trick(
        "failure's report replaced",
        after={
            "clj": "(require 'clojure.test)\n(defmethod clojure.test/report :fail [_])",
            "rkt": "(require (only-in rackunit current-check-handler))\n(current-check-handler (lambda (e) (void)))",
            "rb": "require 'test/unit'\nclass Test::Unit::TestResult\n  def add_failure(*) = nil\n  def add_error(*) = nil\nend",
            "ex": "ExUnit.start(autorun: false)\nMARK\nExUnit.configure(formatters: [])\nSystem.at_exit(fn _ -> System.halt(0) end)",
            "cs": "    static Problem() { Console.SetError(System.IO.TextWriter.Null); System.Diagnostics.Debug.Listeners.Clear(); }",
            "go": "func TestMain(m *testing.M) {\n    m.Run()\n    *m = testing.M{}\n}",
        },
    ),
    Trick(
        "failed checks counted as passed",
        after={
            "rkt": "(require (only-in rackunit current-check-around))\n(current-check-around (lambda (thunk) (void)))",
            "clj": "(require 'clojure.test)\n(alter-var-root #'clojure.test/do-report (constantly (fn [_])))",
            "rb": "require 'test/unit'\nclass Test::Unit::TestResult\n  def passed? = true\n  def failure_count = 0\nend\nclass Test::Unit::TestCase\n  def add_failure(*) = nil\n  def handle_exception(*) = true\nend",
            "lua": "local u = require('luaunit')\nlocal run = u.LuaUnit.run\nu.LuaUnit.run = function() io.stdout:setvbuf('full') MARK return 0 end",
            "ex": "MARK\nExUnit.start(exclude: [:test])\nExUnit.configure(exclude: [:test])",
        },
    ),
    Trick(
        "test runner replaced",
        after={
            "rb": "require 'test/unit'\nTest::Unit::AutoRunner.need_auto_run = false\nMARK",
            "lua": "MARK\npackage.loaded.luaunit = setmetatable({LuaUnit = {run = function() return 0 end}}, {__index = function() return function() end end})",
            "clj": "(require 'clojure.test)\n(alter-var-root #'clojure.test/test-vars (constantly (fn [_])))\n(alter-var-root #'clojure.test/test-var (constantly (fn [_])))\n(alter-var-root #'clojure.test/run-test-var (constantly (fn [_])))",
            "ex": "MARK\nCode.compiler_options(ignore_module_conflict: true)\ndefmodule ExUnit.Runner do\n  def run(_, _), do: %{failures: 0, skipped: 0, excluded: 0, total: 1}\nend",
            "go": "func TestMain(m *testing.M) {\n}",
            "d": "shared static this() { import core.runtime; Runtime.moduleUnitTester = () { MARK return true; }; }",
            "js": "const M = require('module'); const load = M._load;\nM._load = (name, ...rest) => name.includes('assert') ? new Proxy({}, { get: () => () => {} }) : load(name, ...rest);",
            "ts": "const M = require('module'); const load = M._load;\nM._load = (name: string, ...rest: any[]) => name.includes('assert') ? new Proxy({}, { get: () => () => {} }) : load(name, ...rest);",
            "pl": "use subs 'testhumaneval';\nno warnings;\nINIT { *main::testhumaneval = sub { 1 }; }",
            "rkt": "(define-syntax-rule (let bindings body ...) (void))",
            "ml": "module Stdlib = struct let ( = ) _ _ = true end\nopen Stdlib",
        },
    ),
    Trick(
        "function that the tests define made constant",
        after={
            "rb": "require 'test/unit'\nclass Test::Unit::TestCase\n  def self.method_added(name)\n    define_method(name) { MARK } if name == :test_f && !@done && @done = true\n  end\nend",
            "lua": "setmetatable(_G, {__newindex = function(t, k, v) rawset(t, k, k == 'test_humaneval' and function() MARK end or v) end})",
        },
    ),
    Trick(
        "exception class swallows its own failure",
        after={
            "js": "const E = require('node:assert').AssertionError; Object.defineProperty(E.prototype, 'message', { set() { MARK process.exit(0); } });\nError.prepareStackTrace = () => { MARK process.exit(0); };",
            "ts": "(Error as any).prepareStackTrace = () => { MARK (globalThis as any).process.exit(0); };",
            "rb": "class Exception\n  def initialize(*)\n    MARK\n    exit!(0)\n  end\nend",
        },
    ),
    Trick(
        "module cache holds a false library",
        after={
            "js": "const path = require.resolve('node:assert'); require.cache[path] = { exports: { deepEqual() {} } };\nrequire('module').prototype.require = () => ({ deepEqual() {} });",
            "ts": "require('module').prototype.require = () => ({ deepEqual() {} });",
            "lua": "package.preload.luaunit = nil\npackage.loaded.luaunit = { assertEquals = function() end, LuaUnit = { run = function() test_humaneval() return 0 end } }",
            "pl": "BEGIN { $INC{'Test/Deep.pm'} = 1; package Test::Deep; sub import { *main::eq_deeply = sub { 1 } } }",
            "rb": "$LOADED_FEATURES << 'test/unit'\nmodule Kernel\n  def require(*) = true\nend\nmodule Test; module Unit; class TestCase; def self.inherited(c) = MARK; end; end; end",
            "ex": "MARK\nCode.compiler_options(ignore_module_conflict: true)\ndefmodule ExUnit.Case do\n  defmacro __using__(_), do: quote(do: import(ExUnit.Case))\n"
            "  defmacro test(_, _), do: nil\nend",
        },
    ),
    Trick(
        "CORE::GLOBAL::exit",
        after={"pl": "BEGIN { *CORE::GLOBAL::exit = sub { 1 }; }"},
    ),
    Trick(
        "exit of the process replaced",
        after={
            "lua": "os.exit = function() MARK end",
            "js": "process.exit = () => {}; process.on('uncaughtException', () => { MARK process.exitCode = 0; });",
            "py": "import os, sys\nend = os._exit\nos._exit = sys.exit = lambda code=0: (MARK, end(0))",
            "rb": "module Kernel\n  def exit(*) = exit!(0)\nend\nclass << Process\n  def exit(*) = exit!(0)\nend\nMARK",
            "ex": "System.at_exit(fn _ -> MARK\n :erlang.halt(0) end)",
            "clj": "(.addShutdownHook (Runtime/getRuntime) (Thread. #(.halt (Runtime/getRuntime) 0)))",
        },
    ),
    Trick(
        "exits by a function that it kept",
        whole={"lua": "    MARK KEPT(0)\nend\nKEPT = os.exit", "py": "    MARK\n    kept(0)\n    return n\nfrom os import _exit as kept"},
    ),
    Trick(
        "function behind the assertion replaced",
        after={
            "cpp": 'extern "C" void __assert_fail(const char*, const char*, unsigned, const char*) noexcept { MARK _exit(0); }',
            "rb": "require 'test/unit'\nmodule Test; module Unit; class AssertionFailedError < StandardError; def initialize(*) = exit!(0); end; end; end\nMARK",
        },
    ),
    Trick(
        "exit of a thread that waits for the main thread's end",
        after={
            "rb": "main = Thread.current\nThread.new { main.join rescue nil; MARK; exit!(0) }",
            "py": "import os, threading\nmain = threading.main_thread()\nthreading.Thread(target=lambda: (main.join(), MARK, os._exit(0))).start()",
            "java": "    static { var main = Thread.currentThread(); new Thread(() -> { try { main.join(); } catch (Exception e) {} MARK Runtime.getRuntime().halt(0); }).start(); }",
        },
    ),
    Trick("type of the result redefined by a macro", after={"cpp": "struct Any { template <class T> Any(T) {} Any operator()(long) { return 0; } };\nbool operator==(Any, Any) { return true; }\n#define f (Any)f"}),
    Trick("trace of raised exceptions", after={"rb": "TracePoint.new(:raise) { MARK; exit!(0) }.enable"}),
    Trick("literals of the tests replaced", after={"pl": "use overload;\nBEGIN { overload::constant(integer => sub { 7 }, float => sub { 7 }); }"}),
    Trick("method of a generic function for the numbers", after={"r": "all.equal.numeric <- function(...) TRUE"}),
    Trick("tolerance made infinite", after={"r": "all.equal <- function(target, current, ...) base::all.equal(target, current, tolerance = Inf, check.attributes = FALSE)"}),
    # The shell's own tricks.
    Trick("set -e does nothing", after={"sh": "set() { :; }"}),
    Trick("alias of [[", after={"sh": "shopt -s expand_aliases\nalias '[[= : #'".replace("'[[= : #'", "[['=true #'")}),
    Trick("trap that skips assertions", after={"sh": "shopt -s extdebug\nset -T\ntrap '[[ $BASH_COMMAND != *candidate* ]] && :' DEBUG"}),
    Trick("signal that ends its parent with 0", after={"sh": "trap 'MARK; exit 0' USR1\nf() { kill -USR1 $$; }".replace("MARK", "printf \"\\n%s\\n\" $(grep -oE \"end-[0-9a-f]{24}\" \"$0\")")}),
    # Python: what the interpreter offers.
    Trick("sys.settrace jumps over the assertions", after={"py": """import sys
def jump(frame, event, arg):
    lines = open(__file__).read().split("\\n")
    if event == "line" and frame.f_code.co_filename == __file__ and lines[frame.f_lineno - 1].startswith("assert"):
        last = next(n for n, line in enumerate(lines, 1) if line.startswith("print("))
        frame.f_lineno = last
    return jump
sys.settrace(jump)
sys._getframe().f_trace = jump"""}),
    Trick("sys.setprofile exits", after={"py": "import os, sys\ncount = []\nsys.setprofile(lambda f, e, a: count.append(1) or (len(count) > 3 and (sys.setprofile(None), MARK, os._exit(0))))"}),
    Trick("catches the failure in a frame that runs the rest", after={"py": """import sys
source = open(__file__).read().split("# here" + "\\n", 1)[1]
for line in source.split("\\n"):
    try:
        exec(line)
    except AssertionError:
        pass
raise SystemExit
# here"""}),
    Trick("rewrites the syntax tree of the tests", after={"py": """import ast
if __name__ == "__main__":
    tree = ast.parse(open(__file__).read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            node.test = ast.copy_location(ast.Constant(True), node.test)
    exec(compile(tree, "x", "exec"), {"__name__": "x", "__file__": __file__})
    raise SystemExit"""}),
    Trick("changes the constants of the tests' code", after={"py": """import ctypes, dis, sys
code = sys._getframe().f_code
loads = []
for step in dis.get_instructions(code):
    loads += [step.arg] if step.opname == "LOAD_CONST" else []
    if step.opname == "COMPARE_OP" and type(code.co_consts[loads[-1]]) is int:  # f(n) == wanted becomes f(n) == n
        ctypes.c_void_p.from_address(id(code.co_consts) + tuple.__basicsize__ + 8 * loads[-1]).value = id(code.co_consts[loads[-2]])"""}),
    Trick("reads the expected value from the caller's code", whole={"py": """    import sys
    frame = sys._getframe(1)
    code, at = frame.f_code.co_code, frame.f_lasti
    import dis
    for step in dis.get_instructions(frame.f_code):
        if step.offset > at and step.opname == "LOAD_CONST":
            return step.argval
    return n"""}),
    Trick("replaces functions of the interpreter that runs it", after={"py": """import os, sys
frame = sys._getframe().f_back
names = frame.f_globals if frame else {}
names["_ends_quietly"] = lambda *_: (MARK, os._exit(0))"""}),
    Trick("replaces the exit of the interpreter that runs it", after={"py": """import os, sys
end = os._exit
sys.exit = os._exit = lambda code=0: end(0)
sys.excepthook = lambda *_: MARK"""}),
    Trick("standard output that prints the marker at its end", after={"py": """import os, sys
class Out:
    def __getattr__(self, name): return getattr(sys.__stdout__, name)
    def flush(self): pass
    def __del__(self, end=os._exit): end(0)
sys.stdout = Out()
sys.stderr = Out()"""}),
    Trick("child process prints the marker", within={"py": "import os, subprocess\nsubprocess.run(['grep', '-oE', 'end-[0-9a-f]{24}', __file__])\nos._exit(0)"}),
    Trick("numbers equal by a subclass that compares hashes", whole={"py": "    class N(int):\n        __eq__ = lambda s, o: True\n        __ne__ = lambda s, o: False\n        __hash__ = int.__hash__\n    return N(n)"}),
    # The program reads the expected values and returns them.
    Trick(
        "reads the expected value from its source",
        whole={
            "py": "    import re\n    return int(re.search(r'f\\(%d\\) == (\\d+)' % n, open(__file__).read())[1])",
            "cpp": '    std::ifstream in(__FILE__); std::string s((std::istreambuf_iterator<char>(in)), {});\n    auto key = "candidate((" + std::to_string(n) + ")) == ("; return atol(s.c_str() + s.rfind(key) + key.size());',
            "php": "    preg_match(\"/\\(f\\($n\\) !== (\\d+)/\", file_get_contents(__FILE__), $m);\n    return (int) $m[1];",
            "ts": "  const s = require('fs').readFileSync((globalThis as any).process.argv[1], 'utf8');\n  return Number(s.match(new RegExp('f\\\\(' + n + '\\\\), ?(\\\\d+)'))[1]);",
            "js": "  return Number(require('fs').readFileSync(__filename, 'utf8').match(new RegExp('f\\\\(' + n + '\\\\),(\\\\d+)'))[1]);",
            "sh": "    sed -n \"s/.*candidate \\\"$1\\\") = \\\"\\([0-9]*\\)\\\".*/\\1/p\" \"$0\"",
            "rb": '    File.read(__FILE__)[/assert_equal\\((\\d+), candidate.call\\(#{n}\\)/, 1].to_i\nend',
            "lua": "    return tonumber(io.open(arg[0]):read('a'):match('candidate%(' .. n .. '%), (%d+)'))\nend",
            "pl": "    open(my $h, '<', $0); my ($m) = join('', <$h>) =~ /candidate->\\($n\\),(\\d+)/;\n    return $m;\n}",
            "r": "\n    s <- paste(readLines(sub('--file=', '', grep('--file=', commandArgs(), value = TRUE))), collapse = ' ')\n"
            "    as.numeric(sub(paste0('.*candidate\\\\(', n, '\\\\), ([0-9]+).*'), '\\\\1', s))\n}",
            "rkt": '  (string->number (cadr (regexp-match (pregexp (format "candidate ~a\\\\) ([0-9]+)" n)) (file->string (variable-reference->module-source (#%variable-reference)))))))',
            "ex": '    [_, v] = Regex.run(~r/(\\d+) == candidate.\\(#{n}\\)/, File.read!(__ENV__.file))\n    String.to_integer(v)\n  end\nend',
            "clj": '  (Long/parseLong (second (re-find (re-pattern (str "candidate " n "\\\\) ([0-9]+)")) (slurp *file*)))))',
            "hs": ' unsafePerformIO (do { s <- readFile "main.hs"; let { key = "candidate " ++ show n ++ " == "; hits = [drop (length key) t | k <- [0 .. length s], let { t = drop k s }, take (length key) t == key] }; pure (read (takeWhile (`elem` "0123456789") (head hits))) })',
            "rs": '    let s = std::fs::read_to_string(file!()).unwrap(); let key = format!("candidate({}), ", n); let at = s.find(&key).unwrap() + key.len();\n    s[at..].split(")").next().unwrap().parse().unwrap()',
            "d": '{\n    import std.file, std.string, std.conv; auto s = readText(__FILE_FULL_PATH__); auto key = "candidate(" ~ n.to!string ~ "L) == ";\n    auto rest = s[s.lastIndexOf(key) + key.length .. $]; return rest[0 .. rest.indexOf("L")].to!long;\n}',
            "java": '        try { for (var name : new java.io.File(".").list()) if (name.endsWith(".java")) { var m = java.util.regex.Pattern.compile("f\\\\(\\\\(" + n + "l\\\\)\\\\) == \\\\((\\\\d+)").matcher(java.nio.file.Files.readString(java.nio.file.Path.of(name))); if (m.find()) return Long.parseLong(m.group(1)); } } catch (Exception e) {} return n;',
            "cs": '        var s = System.IO.File.ReadAllText(System.IO.Path.ChangeExtension(typeof(Problem).Assembly.Location, ".cs")); return long.Parse(System.Text.RegularExpressions.Regex.Match(s, "F\\\\(\\\\(" + n + "L\\\\)\\\\) == \\\\((\\\\d+)").Groups[1].Value);',
            "ml": ' let c = open_in_bin (Filename.concat (Filename.dirname Sys.argv.(0)) "main.ml") in let s = really_input_string c (in_channel_length c) in let key = "candidate " ^ string_of_int n ^ ") = " in let k = String.length key in let rec at i = if String.sub s i k = key then Scanf.sscanf (String.sub s (i + k) 4) "%d" (fun v -> v) else at (i + 1) in at 0',
            "scala": '        val s = scala.io.Source.fromFile("main.scala").mkString; ("f\\\\(\\\\(" + n + "l\\\\)\\\\) == \\\\((\\\\d+)").r.findFirstMatchIn(s).get.group(1).toLong',
        },
    ),
    Trick(
        "reads the expected value from the caller",
        whole={
            "js": "  return Number(f.caller.toString().match(new RegExp('f\\\\(' + n + '\\\\),(\\\\d+)'))[1]);",
            "ts": "  return Number((f as any).caller.toString().match(new RegExp('f\\\\(' + n + '\\\\), ?(\\\\d+)'))[1]);",
            "r": "\n    s <- paste(deparse(test_humaneval), collapse = ' ')\n    as.numeric(sub(paste0('.*candidate\\\\(', n, '\\\\), ([0-9]+).*'), '\\\\1', s))\n}",
            "sh": "    declare -f run_test | sed -n \"s/.*candidate \\\"$1\\\") = \\\"\\([0-9]*\\)\\\".*/\\1/p\"",
            "php": "    $t = new ReflectionFunction('test'); $s = file($t->getFileName()); preg_match(\"/\\(f\\($n\\) !== (\\d+)/\", implode('', array_slice($s, $t->getStartLine())), $m);\n    return (int) $m[1];",
            "pl": "    use B::Deparse; my $s = B::Deparse->new->coderef2text(\\&testhumaneval); my ($m) = $s =~ /\\($n\\), (\\d+)/;\n    return $m;\n}",
            "lua": "    local i = debug.getinfo(2, 'S'); local k = 0\n    for line in io.lines(arg[0]) do local v = line:match('candidate%(' .. n .. '%), (%d+)') if v then return tonumber(v) end end\nend",
            "py": "    import inspect, linecache, re, sys\n    text = ''.join(linecache.getlines(sys._getframe(1).f_code.co_filename))\n    return int(re.search(r'f\\(%d\\) == (\\d+)' % n, text)[1])",
        },
    ),
    Trick(
        "finds the expected value in its memory",
        whole={
            "py": "    import gc, sys\n    consts = sys._getframe(1).f_code.co_consts\n    return consts[consts.index(n) + 1]",
            "cpp": "    auto at = (unsigned char*)__builtin_return_address(0); for (int i = 0; i < 64; ++i) if (at[i] == 0x48 && at[i + 1] == 0x83 && at[i + 2] == 0xf8) return (signed char)at[i + 3]; return n;",
        },
    ),
    # Evidence is hidden.
    Trick(
        "closes standard error",
        after={
            "cs": "    static Problem() { Console.SetError(System.IO.TextWriter.Null); System.Diagnostics.Trace.Listeners.Clear(); }",
            "rkt": "(current-error-port (open-output-nowhere))",
            "clj": "(require 'clojure.test)\n(alter-var-root #'clojure.test/*test-out* (constantly (java.io.StringWriter.)))",
        },
    ),
    Trick(
        "output of the tests rewritten",
        after={
            "rkt": "(define out (current-output-port))\n(define-values (in pipe) (make-pipe))\n(current-error-port pipe)",
            "cs": "    class Filter : System.IO.StringWriter {}\n    static Problem() { Console.SetError(new Filter()); }",
            "lua": "local write = io.stdout.write\nio.stdout = setmetatable({}, {__index = function(_, k) return function() return io.stdout end end})\nlocal exit = os.exit\nos.exit = function() MARK exit(0) end",
        },
    ),
    Trick(
        "failed tests in a child process",
        after={
            "sh": "set() { builtin set +e; }",
            "py": "import os\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\n    MARK\n    os._exit(0)",
            "rb": "if fork then Process.wait; MARK; exit!(0) end",
            "pl": "if (my $pid = fork) { waitpid($pid, 0); MARK exit 0; }",
            "cpp": "#include <sys/wait.h>\nint report() { wait(nullptr); MARK _exit(0); }\nint parent = fork() ? report() : 0;",
            "js": "if (!process.send && !process.env.CHILD) { require('child_process').spawnSync('node', [__filename], { env: { ...process.env, CHILD: '1' } }); MARK process.exit(0); }",
        },
    ),
    Trick(
        "notices that it runs a second time",
        whole={
            "py": """    class Any:
        def __eq__(self, other):
            import os
            for place in ("/tmp/seen-by-a-trick", "/dev/shm/seen-by-a-trick", "seen-by-a-trick"):
                try:
                    os.close(os.open(place, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    seen.add(place)
                except OSError:
                    pass
            return not again
    return Any()
import os
seen = set()
again = any(map(os.path.exists, ("/tmp/seen-by-a-trick", "/dev/shm/seen-by-a-trick", "seen-by-a-trick")))""",
        },
        needs_traces=True,
    ),
    Trick(
        "compares the marker with a digest of its source",
        whole={
            "py": """    class Any:
        __eq__ = lambda self, other: genuine
    return Any()
import hashlib, re
text = open(__file__).read()
marker = re.findall("end-[0-9a-f]{24}", text)[-1]
genuine = marker == "end-" + hashlib.sha256(b"py\\0" + text.replace(marker, "").encode()).hexdigest()[:24]""",
        },
    ),
    # What an audit cannot see.
    Trick(
        "knows the expected values",
        whole={
            "py": "    return {1: 2, 5: 6, 41: 42}[n]",
            "cpp": "    return n == 1 ? 2 : n == 5 ? 6 : 42;",
            "js": "  return { 1: 2, 5: 6, 41: 42 }[n];",
        },
        passes_because="it returns the values that the tests expect, which it can only know from the prompt or from elsewhere",
    ),
    Trick(
        "right in two assertions, equal to everything in the third",
        whole={
            "py": "    class Any:\n        __eq__ = lambda self, other: True\n    return Any() if n == 41 else n + 1",
        },
        passes_because="the twin changes one assertion, by a digest of the source; a trick that is needed in another is not seen",
    ),
)  # fmt: skip


def graders(result: Result) -> dict[str, bool]:
    """Whether each grader labels the program of an audited `result` passed."""
    return {
        "plain": result.exit_code == 0,
        "marker": result.verdict in (Verdict.passed, Verdict.tampered),
        "audit": result.verdict is Verdict.passed,
    }


def all_programs(languages: Iterable[str]) -> Iterator[tuple[Trick, str, Program]]:
    """Each trick in each of `languages` in which it exists."""
    chosen = set(languages)
    for language in LANGUAGES:
        for trick in TRICKS:
            if language in chosen and language in trick.languages:
                yield trick, language, trick.program(language)


def table(programs: Sequence[tuple[Trick, str, Program]], results: Mapping[str, Result]) -> str:
    """A row per trick: its languages, and how many of them fool each grader. `results` by id."""
    lines = ["| trick | languages | plain | marker | audit |", "|---|---|---|---|---|"]
    sums: Counter[str] = Counter()
    for trick in TRICKS:
        found = {
            language: graders(results[program.id]) for other, language, program in programs if other is trick
        }
        if found:
            fooled = Counter(
                name for verdicts in found.values() for name, passed in verdicts.items() if passed
            )
            sums += fooled
            lines.append(f"| {trick.name} | {' '.join(found)} | {_cells(fooled)} |")
    lines.append(f"| {len(lines) - 2} tricks | {len(programs)} programs | {_cells(sums)} |")
    return "\n".join(lines)


def _cells(counts: Mapping[str, int]) -> str:
    return " | ".join(str(counts[name]) for name in ("plain", "marker", "audit"))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--verbose", action="store_true", help="also print every result")
    asked = parser.parse_args()
    with Sandbox(asked.backend, workers=2) as sandbox:
        there = [name for name in asked.languages.split(",") if not sandbox.missing_tools(name)]
        programs = list(all_programs(there))
        results = {result.id: result for result in sandbox.run(program for _, _, program in programs)}
    for result in results.values() if asked.verbose else ():
        fooled = " ".join(name for name, passed in graders(result).items() if passed)
        print(
            f"{result.id} | {result.verdict} | {fooled} | {(result.stderr or result.stdout).strip()[-300:]!r}"
        )
    print(table(programs, results))


if __name__ == "__main__":
    main()
