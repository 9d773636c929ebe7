"""The code of the number operations; `n` is an integer of any sign."""

from selftrain.problems.bank.code.forms import filled, php, strict

SET = {
    "plus": "n + {k}",
    "less": "n - {k}",
    "less_from": "{k} - n",
    "times": "n * {k}",
    "twice": "n * 2",
    "squared": "n * n",
}
"""Operation -> what becomes of the number."""
SET_IF = {
    "plus_if_even": ("n % 2 == 0", "n + {k}"),
    "plus_if_odd": ("n % 2 != 0", "n + {k}"),
    "less_if_gt": ("n > {k}", "n - {k}"),
    "less_if_ge": ("n >= {k}", "n - {k}"),
}
"""Operation -> a condition, and what becomes of the number if it holds."""
ASKED = {"is_even": "n % 2 == 0", "is_odd": "n % 2 != 0", "above": "n > {k}", "reached": "n >= {k}"}
"""Operation -> the condition that it returns."""


def _arithmetic(set_: str, set_if: str, asked: str) -> dict[str, str]:
    """The operations above; in the templates `<>` stands for the result, and `<if>` for the condition."""
    conditional = {
        name: set_if.replace("<>", result).replace("<if>", condition)
        for name, (condition, result) in SET_IF.items()
    }
    return filled(set_, SET) | conditional | filled(asked, ASKED)


_C_LIKE = {**_arithmetic("n = <>;", "if (<if>) n = <>;", "return <>;"), "number": "return n;"}
"""Lines that C++, Java and C# share, and JavaScript and PHP but for the forms of their comparisons and variables."""

_SCRIPT = strict(_C_LIKE) | {
    "distance": "n = Math.abs(n - {k});",
    "at_least": "n = Math.max(n, {k});",
    "at_most": "n = Math.min(n, {k});",
    "half_down": "n = Math.floor(n / 2);",
    "half_up": "n = Math.ceil(n / 2);",
    "size": "return Math.abs(n);",
    "digit_count": "return String(Math.abs(n)).length;",
    "digit_sum": 'return String(Math.abs(n)).split("").reduce((t, d) => t + Number(d), 0);',
}

CODE: dict[str, dict[str, str]] = {
    "py": {
        **_arithmetic("n = <>", "n = <> if <if> else n", "return <>"),
        "distance": "n = abs(n - {k})",
        "at_least": "n = max(n, {k})",
        "at_most": "n = min(n, {k})",
        "half_down": "n = n // 2",
        "half_up": "n = (n + 1) // 2",
        "number": "return n",
        "size": "return abs(n)",
        "digit_count": "return len(str(abs(n)))",
        "digit_sum": "return sum(int(d) for d in str(abs(n)))",
    },
    "cpp": {
        **_C_LIKE,
        "distance": "n = std::abs(n - {k});",
        "at_least": "n = std::max<long>(n, {k});",
        "at_most": "n = std::min<long>(n, {k});",
        "half_down": "n = std::floor(n / 2.0);",
        "half_up": "n = std::ceil(n / 2.0);",
        "size": "return std::abs(n);",
        "digit_count": "return std::to_string(std::abs(n)).size();",
        "digit_sum": "{ long t = 0; for (char d : std::to_string(std::abs(n))) t += d - '0'; return t; }",
    },
    "java": {
        **_C_LIKE,
        "distance": "n = Math.abs(n - {k});",
        "at_least": "n = Math.max(n, {k});",
        "at_most": "n = Math.min(n, {k});",
        "half_down": "n = Math.floorDiv(n, 2);",
        "half_up": "n = Math.floorDiv(n + 1, 2);",
        "size": "return Math.abs(n);",
        "digit_count": "return String.valueOf(Math.abs(n)).length();",
        "digit_sum": "return String.valueOf(Math.abs(n)).chars().map(d -> d - '0').sum();",
    },
    "php": {
        **php(_C_LIKE),
        "distance": "$n = abs($n - {k});",
        "at_least": "$n = max($n, {k});",
        "at_most": "$n = min($n, {k});",
        "half_down": "$n = (int) floor($n / 2);",
        "half_up": "$n = (int) ceil($n / 2);",
        "size": "return abs($n);",
        "digit_count": "return strlen((string) abs($n));",
        "digit_sum": "return array_sum(str_split((string) abs($n)));",
    },
    "ts": _SCRIPT,
    "cs": {
        **_C_LIKE,
        "distance": "n = Math.Abs(n - {k});",
        "at_least": "n = Math.Max(n, {k});",
        "at_most": "n = Math.Min(n, {k});",
        "half_down": "n = (long) Math.Floor(n / 2.0);",
        "half_up": "n = (long) Math.Ceiling(n / 2.0);",
        "size": "return Math.Abs(n);",
        "digit_count": "return Math.Abs(n).ToString().Length;",
        "digit_sum": "return Math.Abs(n).ToString().Sum(d => d - '0');",
    },
    "sh": {
        **_arithmetic("n=$((<>))", "((<if>)) && n=$((<>))", "((<>)) && echo true || echo false"),
        "distance": "n=$((n - {k})); n=${n#-}",
        "at_least": "n=$((n > {k} ? n : {k}))",
        "at_most": "n=$((n < {k} ? n : {k}))",
        "half_down": "n=$((n >> 1))",
        "half_up": "n=$(((n + 1) >> 1))",
        "number": "echo $n",
        "size": "echo ${n#-}",
        "digit_count": "n=${n#-}; echo ${#n}",
        "digit_sum": "t=0; n=${n#-}; for ((i = 0; i < ${#n}; i++)); do t=$((t + ${n:i:1})); done; echo $t",
    },
    "js": _SCRIPT,
}
