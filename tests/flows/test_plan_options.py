"""Tests of numbers on the command line of `selftrain plan` that describe no machine and no work."""

import pytest

from flows.cli import main


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--utilisation", "0", "expected a number above 0, got '0'"),
        ("--utilisation", "nan", "expected a number above 0, got 'nan'"),
        ("--utilisation", "40", "expected a share above 0 and at most 1, got '40'"),
        ("--sampling-utilisation", "0", "expected a number above 0"),
        ("--tflops", "0", "expected a number above 0"),
        ("--tflops", "inf", "expected a number above 0"),
        ("--gpu-memory", "0", "expected a number above 0"),
        ("--gpu-memory", "80GB", "expected a number above 0, got '80GB'"),
        ("--problems", "0", "expected a whole number, at least 1, got '0'"),
        ("--machines", "9" * 5000, "expected a whole number, at least 1"),
    ],
)
def test_a_number_that_describes_nothing_is_refused(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "smoke", option, value])
    assert ended.value.code == 2
    assert f"error: argument {option}: {said}" in capsys.readouterr().err
