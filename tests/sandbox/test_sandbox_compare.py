"""Tests of the rules that compare output (`sandbox.compare`).

Expected results are written by hand; those of the rule `code-contests` come from CodeContests' own tester.
"""

import itertools
import time

import pytest

from sandbox.compare import check_rule, same

RULES = ("exact", "lines", "tokens", "tokens,nocase", "float:1e-5", "code-contests")
"""The columns of the table below."""


@pytest.mark.parametrize(
    ("got", "expected", "right"),
    [
        ("7\n", "7\n", "exact lines tokens tokens,nocase float:1e-5 code-contests"),
        ("7", "7\n", "lines tokens tokens,nocase float:1e-5 code-contests"),
        ("7 \n\n", "7\n", "lines tokens tokens,nocase float:1e-5 code-contests"),
        ("7\r\n8\r\n", "7\n8\n", "lines tokens tokens,nocase float:1e-5 code-contests"),
        ("\n7", "7", "tokens tokens,nocase float:1e-5 code-contests"),
        ("    7    8", "7 8", "tokens tokens,nocase float:1e-5 code-contests"),  # %6I64d
        ("7\n8", "7 8", "tokens tokens,nocase float:1e-5 code-contests"),
        ("7\v8\t9", "7 8 9", "tokens tokens,nocase float:1e-5 code-contests"),
        ("7 8", "78", ""),
        ("", "\n", "lines tokens tokens,nocase float:1e-5 code-contests"),
        ("", "", "exact lines tokens tokens,nocase float:1e-5 code-contests"),
        ("0", "", ""),
        ("", "0", ""),
        ("1", "1 1", ""),
        ("1 1", "1", ""),
        # case
        ("Yes", "YES", "tokens,nocase code-contests"),
        ("ÄH", "äh", ""),  # ASCII alone, as CodeContests' tester
        # numbers written in another way
        ("1.5", "1.500000", "float:1e-5 code-contests"),
        ("1.", "1.0", "float:1e-5 code-contests"),
        (".5", "0.5", "float:1e-5 code-contests"),
        ("1e5", "100000", "float:1e-5 code-contests"),
        ("1E5", "100000", "float:1e-5 code-contests"),
        ("+5", "5", "float:1e-5 code-contests"),
        ("+-5", "-5", ""),
        ("007", "7", "float:1e-5 code-contests"),
        ("-0", "0", "float:1e-5 code-contests"),
        ("-0.0", "0", "float:1e-5 code-contests"),
        ("0x10", "16", ""),
        ("1_0", "10", ""),
        ("٣", "3", ""),
        ("1,5", "1.5", ""),
        ("1e", "1", ""),
        ("5\0", "5", ""),
        ("5\0", "5\0", "exact lines tokens tokens,nocase float:1e-5 code-contests"),
        # numbers that are off
        ("0.666667", "0.6666666667", "float:1e-5 code-contests"),
        ("0.66668", "0.66667", "float:1e-5"),  # 1.0000000000010001e-05 apart; CodeContests asks for less than 1e-5
        ("0.66669", "0.66667", ""),
        ("1000000.5", "1000001.5", "float:1e-5"),  # relative; CodeContests' tolerance is absolute
        ("0.000001", "0.000002", "float:1e-5 code-contests"),
        ("3 0.5", "4 0.5", ""),
        ("1000000", "1000001", ""),  # relatively near, but whole numbers
        ("1000000", "1000000.000001", "float:1e-5 code-contests"),
        ("9007199254740993", "9007199254740992", "code-contests"),  # the same double
        ("9007199254740994", "9007199254740992", ""),
        ("1" + "0" * 400, "1" + "0" * 399 + "1", ""),  # no doubles at all
        ("1" + "0" * 400, "1" + "0" * 400 + ".0", ""),
        ("00" + "1" * 5000, "1" * 5000, "float:1e-5"),
        ("1" * 5000, "1" * 4999 + "2", ""),
        ("1e400", "1e401", ""),
        # not finite
        ("inf", "inf", "exact lines tokens tokens,nocase float:1e-5 code-contests"),
        ("inf", "Infinity", "float:1e-5"),
        ("-inf", "inf", ""),
        ("inf", "1e400", ""),
        ("1e308", "inf", ""),
        ("nan", "NaN", "tokens,nocase code-contests"),
        ("nan", "1", ""),
        ("inf 1.50", "inf 1.5", "float:1e-5 code-contests"),
    ],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_what_each_rule_takes_for_the_same(got: str, expected: str, right: str) -> None:
    assert [rule for rule in RULES if same(rule, got.encode(), expected)] == right.split()


def test_a_number_in_a_word_is_a_word() -> None:
    assert not same("float:1e-5", b"case#1.0", "case#1")
    assert same("float:1e-5,nocase", b"Case 1.0", "case 1")
    assert not same("float:1e-5", b"Case 1.0", "case 1")


def test_the_tolerance_is_the_rules_own() -> None:
    assert same("float:0.1", b"10.5", "10")
    assert not same("float:0.01", b"10.5", "10")
    assert same("float:1e-9", b"1.0000000001", "1.0")


def test_lines_without_case() -> None:
    assert same("lines,nocase", b"YES\nno", "yes\nNO\n")
    assert not same("lines,nocase", b"YES no", "yes\nNO\n")


def test_bytes_that_are_no_text() -> None:
    assert not same("exact", b"\xff", "�")
    assert not same("lines", b"\xff\n", "�")
    assert same("lines", b"\xff\n", "\udcff")  # how Python writes the byte in a text
    assert not same("lines", b"\xfe\n", "\xfe\n")
    assert same("lines", b"\xc3\xbe \n", "\xfe")
    assert not same("tokens", b"\xff", "?")
    assert not same("tokens", b"?", "\ud800")


@pytest.mark.parametrize(
    "rule",
    ["", "token", "lines ", "float", "float:", "float:0", "float:-1", "float:nan", "float:inf", "float:1_0",
     "exact,nocase", "code-contests,nocase", "nocase", "float:1e-5,nocase,nocase", "Lines"],
)  # fmt: skip
def test_an_unknown_rule_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="known: exact, lines, tokens, float:TOLERANCE"):
        check_rule(rule)


MUCH = 8 << 20
LARGE = {
    "one token": (b"1" * MUCH, "1" * MUCH + "."),
    "zeros": (b"0" * MUCH + b"x", "0" * MUCH + "y"),
    "decimals": (b"0." + b"3" * MUCH, "0." + "3" * (MUCH - 1)),
    "no expected": (b"1 " * (MUCH // 2), ""),
    "blank": (b" " * MUCH, "\n" * MUCH),
    "digits": (b"1 " * (MUCH // 2), "1\n" * (MUCH // 2)),
    "all different": (
        b" ".join(b"%d.5" % at for at in range(900_000)),
        " ".join(f"{at}.50" for at in range(900_000)),
    ),
}


@pytest.mark.parametrize(("rule", "text"), itertools.product(("lines", "float:1e-5", "code-contests"), LARGE))
def test_eight_mebibytes_take_no_time(rule: str, text: str) -> None:
    """CPU seconds. The bound allows for a slow machine; a quadratic algorithm would take hours."""
    started = time.process_time()
    same(rule, *LARGE[text])
    assert time.process_time() - started < 10
