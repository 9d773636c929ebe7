"""Tests of the report's plots: scales, ticks, and positions of values."""

import re
from xml.etree import ElementTree

import pytest

from selftrain.report import charts
from selftrain.report.numbers import difference, percent
from selftrain.report.page import ReportInputs
from selftrain.report.svg import Drawing, Scale, nice_scale, tick_label


def test_a_scale_maps_its_ends_and_its_middle() -> None:
    down = Scale(-1, 1, 100, 0)
    assert [down(-1), down(0), down(1)] == [100, 50, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0], ["0", "0.5", "1"]),
        ([0.03, 0.31], ["0", "0.1", "0.2", "0.3", "0.4"]),
        ([-3.2, 4.1], ["−4", "−2", "0", "2", "4", "6"]),
        ([1.0, 20.0], ["0", "5", "10", "15", "20"]),
    ],
)
def test_ticks_are_round_and_hold_the_values(values: list[float], expected: list[str]) -> None:
    scale = nice_scale(values, 0, 100)
    assert scale.low <= min(values)
    assert scale.high >= max(values)
    assert [tick_label(tick) for tick in scale.ticks] == expected


def test_a_constant_still_has_a_scale() -> None:
    scale = nice_scale([2.0, 2.0], 0, 100, at_least=1)
    assert scale.low < 2.0 < scale.high


def test_text_of_a_drawing_is_escaped() -> None:
    drawing = Drawing(10, 10, 'a "label" <b>')
    drawing.text((1, 2), "<script>&", "axis")
    drawing.circle((1, 1), 2, "dot", "tip </title>")
    markup = drawing.markup()
    assert "&lt;script&gt;&amp;" in markup
    assert "tip &lt;/title&gt;" in markup
    root = ElementTree.fromstring(markup)
    assert root.attrib["aria-label"] == 'a "label" <b>'


def test_dots_stand_where_their_values_are(inputs: ReportInputs) -> None:
    metrics = inputs.evaluation["pools"]["sft"]["overall"]
    markup = charts.pick_chart("sft", metrics, "rm-2")
    centres = [float(x) for x in re.findall(r'<circle class="[^"]*" cx="([\d.]+)"', markup)]
    expected = [104 + 106 * estimate["value"] for estimate in charts.ways(metrics).values()]
    assert centres == pytest.approx(expected, abs=0.06)
    assert re.findall(r'class="chosen"[^>]*>([^<]*)<', markup) == ["rm-2"]
    oracle = metrics["oracle"]
    numbers = [f"{100 * oracle[part]:.1f}" for part in ("value", "low", "high")]
    assert f">{numbers[0]} [{numbers[1]}, {numbers[2]}]</text>" in markup


def test_rounds_have_colours_of_their_own() -> None:
    assert charts.colour("rm-1") == charts.colour("ppo-1") == "round-1"
    assert charts.colour("rm-2+logprob") == "round-2 hollow"
    assert charts.colour("rm-7") == "round-1"
    assert charts.colour("majority") == "way-majority"


def test_bars_of_pairs_add_up() -> None:
    markup = charts.pairs_chart({"1": {"easy": 100, "on_policy": 300}, "2": {"hard_negative": 200}})
    widths = dict(re.findall(r'class="kind-(\w+)"[^>]* width="([\d.]+)" [^>]*><title>\w+: [1-9]', markup))
    assert {kind: float(width) for kind, width in widths.items()} == {
        "easy": 57.0,
        "on_policy": 171.0,
        "hard_negative": 114.0,
    }


def test_differences_say_when_they_are_not_told_apart() -> None:
    assert percent(0.5214) == "52.1\N{NO-BREAK SPACE}%"
    sure = {"value": -0.112, "low": -0.169, "high": -0.05}
    assert difference(sure) == "−11.2\N{NO-BREAK SPACE}points [−16.9, −5.0]"
    assert difference(sure | {"high": 0.01}).endswith("[−16.9, +1.0], not significant (95 % CI includes 0)")


def test_a_difference_is_drawn_and_written_with_its_interval() -> None:
    row = {"name": "x", "value": 0.1, "low": -0.05, "high": 0.2}
    markup = charts.difference_chart({"over random": row})
    # Ticks from -10 to 20 lie between pixels 14 and 326: 10.4 pixels a point.
    assert 'cx="222" cy="32"' in markup
    assert ">+10.0 [−5.0, +20.0]</text>" in markup
    assert 'class="dot unsure"' in markup


def test_a_bin_of_chances_stands_over_its_chance_at_its_share() -> None:
    bins = [{"candidates": 10, "chance": 0.5, "passed": 0.75}]
    markup = charts.reliability_chart("chances", {"round-1": bins})
    assert '<circle class="dot round-1" cx="186" cy="55" r="4">' in markup
    assert "75.0\N{NO-BREAK SPACE}% of 10 pass" in markup
