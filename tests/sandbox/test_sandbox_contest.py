"""Programs that read standard input find what contest judges give them."""

from sandbox.client import Sandbox
from sandbox.verdicts import MIB, Case, Limits, Program, Verdict

DEEP = """#include <cstdio>
long down(long n) { volatile long kept[12] = {n}; return n ? down(n - 1) + kept[0] - n + 1 : 0; }
int main() { long n; if (scanf("%ld", &n) == 1) printf("%ld\\n", down(n)); }
"""
ENDLESS = DEEP.replace("down(n - 1)", "down(n + 1)")
SLOW = """#include <iostream>
#include <vector>
int main() {
    int n, best = 0;
    std::cin >> n;
    std::vector<int> a(n);
    for (int i = 0; i < n; i++) a[i] = (i * 48271L) % 65537;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) best = std::max(best, a[i] - a[j]);
    std::cout << best << std::endl;
}
"""
JUDGED = """#include <cstdio>
#include <cstdlib>
int main() {
#ifdef ONLINE_JUDGE
    puts(getenv("ONLINE_JUDGE"));
#else
    return getenv("ONLINE_JUDGE") ? 2 : 3;
#endif
}
"""
THREADS = """#include <atomic>
#include <iostream>
#include <thread>
#include <vector>
int main() {
    std::atomic<int> sum{0};
    std::vector<std::thread> all;
    for (int i = 0; i < 20; i++) all.emplace_back([&sum, i] { sum += i; });
    for (auto& one : all) one.join();
    std::cout << sum << std::endl;
}
"""
PROGRAMS = (
    (Program("1,000,000 calls deep", "cpp", DEEP, (Case("1000000\n", "1000000\n"),)), Verdict.passed),
    (
        Program("deeper than the memory", "cpp", DEEP, (Case("1000000\n", ""),), limits=Limits(memory_bytes=64 * MIB)),
        Verdict.runtime_error,
    ),
    (Program("without end", "cpp", ENDLESS, (Case("1\n", ""),)), Verdict.runtime_error),
    (
        Program("compiled for speed", "cpp", SLOW, (Case("40000\n", "65536\n"),), limits=Limits(cpu_seconds=4)),
        Verdict.passed,
    ),
    (Program("judged online", "cpp", JUDGED, (Case("", "true\n"),)), Verdict.passed),
    (Program("not judged online", "cpp", JUDGED), Verdict.runtime_error),
    (Program("threads with their own stacks", "cpp", THREADS, (Case("", "190\n"),)), Verdict.passed),
    (Program("Python", "py", "import os\nprint(os.environ['ONLINE_JUDGE'])", (Case("", "true"),)), Verdict.passed),
    (Program("Python with tests", "py", "import os\nassert 'ONLINE_JUDGE' not in os.environ"), Verdict.passed),
    (
        Program("Bash", "sh", 'echo "$ONLINE_JUDGE"; ulimit -s >&2', (Case("", "true"),)),
        Verdict.passed,
    ),
)  # fmt: skip


def test_contest_programs(sandbox: Sandbox) -> None:
    results = {result.id: result for result in sandbox.run([program for program, _ in PROGRAMS])}
    found = {id: result.verdict for id, result in results.items()}
    assert found == {program.id: verdict for program, verdict in PROGRAMS}, results
    assert results["not judged online"].exit_code == 3
