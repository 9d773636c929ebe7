"""Tests of Java and Scala: the file name and the class to run are those that a contest judge would choose."""

from sandbox.client import Sandbox
from sandbox.languages import MORE
from sandbox.verdicts import Case, Program, Verdict
from tests.needs import need
from tests.sandbox.conftest import build_image, need_backend

BODY = "{ var in = new java.util.Scanner(System.in); System.out.println(in.nextInt() * in.nextInt()); }"
MAIN = f"public static void main(String[] args) {BODY}"
OTHER = 'public static void main(String[] args) { System.out.println("the wrong main"); }'

RIGHT = {
    "one public class": f"public class Product {{ {MAIN} }}",
    "no public class": f"class Product {{ {MAIN} }}",
    "modifiers before public": f"final public class Product {{ {MAIN} }}",
    "strictfp": f"public strictfp class Product {{ {MAIN} }}",
    "sealed": f"public sealed class Product permits Half {{ {MAIN} }}\nfinal class Half extends Product {{}}",
    "an annotation": f'@SuppressWarnings("class Wrong {{") @Deprecated public class Product {{ {MAIN} }}',
    "an annotation of one's own": f'@interface Judged {{ String by(); }}\n@Judged(by = "public class No")\npublic class Yes {{ {MAIN} }}',
    "each word on a line": f"public\n  class\n    Product\n{{ {MAIN} }}",
    "indented": f"    public class Product {{\n        {MAIN}\n    }}",
    "a nested class at the margin": f"public class Outer {{\nclass Inner {{ int x; }}\nstatic class Deep {{ int y; }}\n{MAIN}\n}}",
    "a nested public class first": f"class Shelf {{ public static class Box {{}} }}\npublic class Real {{ {MAIN} }}",
    "a helper before": f"class Pair {{ int a; }}\npublic class Product {{ {MAIN} }}",
    "a helper after": f"public class Product {{ {MAIN} }}\nclass Pair {{ int a; }}",
    "a record": f"public record Pair(int a, int b) {{ {MAIN} }}",
    "an enum": f"public enum Color {{ RED, GREEN; {MAIN} }}",
    "an interface": f"public interface Runs {{ {MAIN.removeprefix('public ')} }}",
    "an annotation type": "public @interface Marked { class Inner { } }\nclass Runs { " + MAIN + " }",
    "a package": f"package round.one;\npublic class Product {{ {MAIN} }}",
    "a package, no public class": f"/* package here; */ package a.b.c;\nclass Product {{ {MAIN} }}",
    "a package named as the class": f"package Product;\npublic class Product {{ {MAIN} }}",
    "words in a comment": f"// public class Wrong {{ static void main(\n/* public class Worse */ public class Product {{ {MAIN} }}",
    "words in a string": f'class Notes {{ String s = "public class Wrong {{"; }}\npublic class Product {{ {MAIN} }}',
    "words in a text block": f'class Notes {{ String s = """\npublic class Wrong {{\n public static void main(String[] a) {{}}\n}}\n"""; }}\n'
    f"public class Product {{ {MAIN} }}",
    "escapes": f"\\u0070ublic class Pr\\u006fduct {{ public static void m\\u0061in(String[] a) {BODY} }}",
    "an escape that a name does not count": f"public class A\\u0000B {{ {MAIN} }}",
    "a long name": f"public class L{'o' * 200}ng {{ {MAIN} }}",
    "letters beyond ASCII": f"public class Größe名𝒳 {{ {MAIN} }}",
    "letters with marks, a currency": f"public class नाम€ {{ {MAIN} }}",
    "dollars and digits": f"public class $1_Product$x {{ {MAIN} }}",
    "static public": f"public class Product {{ static public void main(String[] args) {BODY} }}",
    "final and dots": f"public class Product {{ public static final void main(final String... args) {BODY} }}",
    "brackets after the name": f"public class Product {{ public static void main(String args[]) {BODY} }}",
    "throws and a type parameter": f"public class Product {{ public static <T> void main(String[] a) throws Exception {BODY} }}",
    "two mains, one public": f"class First {{ {OTHER} }}\npublic class Second {{ {MAIN} }}",
    "two mains, none public": f"class Zebra {{ {MAIN} }}\nclass Ant {{ {OTHER} }}",
    "a main in the second class": f"class First {{ int x; }}\nclass Second {{ {MAIN} }}",
    "a public class without main": f"public class First {{ int x; }}\nclass Second {{ {MAIN} }}",
    "a main that is inherited": f"class Zero {{ {OTHER} }}\nabstract class Base<T> {{ {MAIN} }}\npublic class Product extends Middle {{ }}\n"
    "class Middle extends Base<String> { }",
    "other methods named main": f"class First {{ static void main() {{}} void main(String[] a) {{}} int main(int a) {{ return a; }} }}\n"
    f"class Second {{ public static int main(String a) {{ return 0; }} {MAIN} }}",
    "a nested main": f"public class Product {{ {MAIN} static class Inner {{ {OTHER} }} }}",
    "local and anonymous classes": "public class Product { "
    + MAIN
    + " Runnable r = new Runnable() { public void run() { class L {} } }; }",
}
ENDS = {
    "no main": ("public class Product { int x; }", Verdict.runtime_error),
    "a main that is not public": (f"class Product {{ static void main(String[] a) {BODY} }}", Verdict.runtime_error),
    "a main that is not static": (f"class Product {{ public void main(String[] a) {BODY} }}", Verdict.runtime_error),
    "a main in a nested class": (f"public class Product {{ static class Inner {{ {MAIN} }} }}", Verdict.runtime_error),
    "nothing": ("// nothing\n", Verdict.runtime_error),
    "two public classes": (f"public class A {{ {MAIN} }}\npublic class B {{}}", Verdict.compile_error),
    "a public class and interface": (f"public interface A {{}}\npublic class B {{ {MAIN} }}", Verdict.compile_error),
    "the same class twice": (f"class A {{ {MAIN} }}\nclass A {{}}", Verdict.compile_error),
    "a module": ("module round { }", Verdict.compile_error),
    "a name that no file can have": (f"public class L{'o' * 300}ng {{ {MAIN} }}", Verdict.compile_error),
    "a helper of such a name": (f"class L{'o' * 300}ng {{}}\npublic class A {{ {MAIN} }}", Verdict.compile_error),
    "what the compiler says, in a string": (
        f'class A {{ String s = "A.java:1: error: class ../B is public, should be declared in a file named ../B.java; {MAIN} }}',
        Verdict.compile_error,
    ),
}  # fmt: skip
SLOW = (
    "no public class", "an interface", "a package, no public class", "escapes", "letters beyond ASCII", "words in a comment",
    "two mains, none public", "a main that is inherited", "no main", "two public classes", "a name that no file can have",
    "an escape that a name does not count", "a long name", "letters with marks, a currency", "what the compiler says, in a string",
)  # fmt: skip
"""Judged where each program waits for a javac of its own."""


def wanted(sandbox: Sandbox) -> dict[str, tuple[str, Verdict]]:
    every = {name: (source, Verdict.passed) for name, source in RIGHT.items()} | ENDS
    return every if sandbox.backend == "docker" else {name: every[name] for name in SLOW}


def test_the_class_that_is_run(sandbox: Sandbox) -> None:
    need(not (missing := sandbox.missing_tools("java")), f"java needs {', '.join(missing)}")
    programs = [
        Program(name, "java", source, (Case("6 7\n", "42\n"), Case("1 3\n", "3\n")))
        for name, (source, _) in wanted(sandbox).items()
    ]
    results = {result.id: result for result in sandbox.run(programs)}
    expected = {name: verdict for name, (_, verdict) in wanted(sandbox).items()}
    assert {name: result.verdict for name, result in results.items()} == expected


def test_the_object_that_is_run_in_scala() -> None:
    need_backend("docker")
    build_image(MORE)
    body = "{ val in = new java.util.Scanner(System.in); println(in.nextInt() * in.nextInt()) }"
    sources = [
        f"package one\n  // object Wrong\n  case class Pair(a: Int)\n  final object Right {{ def main(args: Array[String]): Unit = {body} }}",
        f"abstract class Base {{ def main(args: Array[String]): Unit = {body} }}\nobject First {{ }} ; object Second extends Base",
        f"object Main extends App {body}",
    ]
    programs = [Program(f"{n}", "scala", source, (Case("6 7", "42"),)) for n, source in enumerate(sources)]
    with Sandbox("docker", workers=2) as sandbox:
        assert [result.verdict for result in sandbox.run(programs)] == [Verdict.passed] * 3
