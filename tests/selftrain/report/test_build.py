"""Tests of report.json, which must have an exact shape, and of report.html, which must be safe with hostile text."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sandbox.verdicts import Verdict
from selftrain.errors import RunError
from selftrain.evaluation.comparisons import evaluate_pools
from selftrain.evaluation.pools import Pool
from selftrain.report import page
from selftrain.report.build import build_report, finish_report, plots
from selftrain.report.page import ReportInputs
from selftrain.report.terminal import summary_table
from selftrain.units import duration

ESTIMATE = {"value", "low", "high"}
RANKER = ESTIMATE | {"gap_recovered", "auc", "pair_accuracy"}
METRICS = {"problems", "samples", "greedy", "random", "logprob", "logprob_sum", "majority", "examples", "oracle", "best_of", "rankers"}  # fmt: skip


def built(inputs: ReportInputs, out: Path) -> tuple[dict, str]:
    build_report(inputs, out)
    return json.loads((out / "report.json").read_text()), (out / "report.html").read_text()


def test_report_json_has_exactly_its_shape(inputs: ReportInputs, tmp_path: Path) -> None:
    report, _ = built(inputs, tmp_path)
    assert set(report) == {
        "config",
        "problems",
        "seconds",
        "cached",
        "pools",
        "comparisons",
        "chosen",
        "headline",
    }
    assert set(report["problems"]) == {"source", "train", "validation", "eval"}
    assert set(report["seconds"]) == {"total", *inputs.seconds}
    assert report["config"] == inputs.config
    assert list(report["pools"]) == ["sft", "ppo-1", "ppo-2"]
    for pool in report["pools"].values():
        assert set(pool) == {"overall", "languages"}
        assert set(pool["languages"]) == {"py", "sh"}
        for metrics in (pool["overall"], *pool["languages"].values()):
            assert set(metrics) == METRICS
            assert metrics["examples"] is None
            for way in ("greedy", "random", "logprob", "logprob_sum", "majority", "oracle"):
                assert set(metrics[way]) == ESTIMATE
                assert metrics[way]["low"] <= metrics[way]["value"] <= metrics[way]["high"]
            assert set(metrics["best_of"]) == {"logprob", "logprob_sum", "oracle"}
            for curve in [
                *metrics["best_of"].values(),
                *(row["best_of"] for row in metrics["rankers"].values()),
            ]:
                assert list(curve) == ["1", "2", "4", "8"]
                assert all(set(point) == ESTIMATE for point in curve.values())
            assert list(metrics["rankers"]) == ["rm-1", "rm-1+logprob", "rm-2", "rm-2+logprob"]
            for ranker in metrics["rankers"].values():
                assert set(ranker) == RANKER | {"best_of"}
                for quality in RANKER - ESTIMATE:
                    assert ranker[quality] is None or set(ranker[quality]) == ESTIMATE
    names = [row["name"] for row in report["comparisons"]]
    assert len(set(names)) == len(names)
    assert {
        "sft/rm-2+logprob-majority",
        "sft/rm-2+logprob~shuffled-random",
        "system/2-1",
        "score/ppo-1-sft",
    } <= set(names)
    assert all(set(row) == {"name"} | ESTIMATE for row in report["comparisons"])


def test_the_page_says_how_scores_become_chances(inputs: ReportInputs, tmp_path: Path) -> None:
    _, page = built(inputs, tmp_path)
    cells = "<th>rm-2</th><td>sigmoid(0.693 score -1.25)</td><td>20.3\N{NO-BREAK SPACE}%</td><td>1.7\N{NO-BREAK SPACE}%</td>"
    assert cells in page
    _, page = built(replace(inputs, calibration={}), tmp_path)  # an evaluation from before
    assert "Scores as chances" not in page


def test_a_report_is_the_same_twice_and_says_nothing_of_the_run_until_it_is_finished(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    report, html = built(inputs, tmp_path / "a")
    assert built(inputs, tmp_path / "b") == (report, html)
    assert (report["seconds"]["total"], report["cached"]) == (None, [])
    assert "The run is still going on." in html
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "report.csv",
        "report.html",
        "report.json",
    ]


def test_a_report_is_finished_again_by_the_next_run(inputs: ReportInputs, tmp_path: Path) -> None:
    built(inputs, tmp_path)
    finish_report(tmp_path, 652.34567, 1.5, [])
    assert "This run took 10 min 52 s." in (tmp_path / "report.html").read_text()
    assert "Its code" not in (tmp_path / "report.html").read_text()
    returned = finish_report(tmp_path, 4.2, 1.5, ["prepare", "sft"], "0123abcd-dirty")
    html = (tmp_path / "report.html").read_text()
    made = duration(sum(inputs.seconds.values()) + 1.5)
    assert f"Its stages took {made} to make; this run took 4.2 s, for 2 of them were cached." in html
    assert "10 min 52 s" not in html
    assert json.loads((tmp_path / "report.json").read_text()) == returned
    assert (returned["seconds"]["total"], returned["cached"]) == (4.2, ["prepare", "sft"])
    assert "Its code: commit 0123abcd-dirty." in html
    assert returned["git_commit"] == "0123abcd-dirty"


def test_a_folder_without_a_report_cannot_be_finished(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=re.escape(str(tmp_path))):
        finish_report(tmp_path, 1.0, 0.5, [])


def test_the_page_asks_for_nothing_from_elsewhere(inputs: ReportInputs, tmp_path: Path) -> None:
    _, html = built(inputs, tmp_path)
    assert not re.findall(r"https?://", html)
    assert not re.findall(r"@import|url\(|<link[^>]+stylesheet|<iframe|<img|<script[^>]+src", html)
    assert "default-src 'none'" in html


def test_every_plot_of_the_page_is_an_image_too(inputs: ReportInputs, tmp_path: Path) -> None:
    build_report(inputs, tmp_path)
    page = (tmp_path / "report.html").read_text()
    found = plots(tmp_path)
    assert [label for label, _ in found] == re.findall(r'<svg [^>]*aria-label="([^"]*)"', page)
    assert len(found) == page.count("<svg ") > 10
    for _, url in found:
        root = ElementTree.fromstring(base64.b64decode(url.removeprefix("data:image/svg+xml;base64,")))
        assert root.attrib["viewBox"]


def test_hostile_text_stays_text(inputs: ReportInputs, tmp_path: Path) -> None:
    harm = "</script></pre><script>1</script><!--run-->"
    hostile = replace(inputs, name=harm, notes=(harm,), seconds={harm: 1.0}, config={"key": harm})
    build_report(hostile, tmp_path)
    finish_report(tmp_path, 1.0, 0.5, [])
    html = (tmp_path / "report.html").read_text()
    assert html.count("</script>") == 2  # the data's and the page's own
    assert html.count("<script") == 2
    assert html.count("<!--run-->") == 1
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)[1]
    assert not set(data) & set("<>&")
    texts = [text for problem in json.loads(data)["problems"] for text in problem["texts"]]
    assert any("\ud800" in text and "\u202e" in text for text in texts)  # nothing of a text is lost


def test_the_smallest_run_has_a_report(inputs: ReportInputs, tmp_path: Path) -> None:
    """One problem that all candidates pass, one constant ranker, no PPO, no pairs, no second round."""
    easy = max(inputs.pools[0].problems, key=lambda problem: problem.passed.mean())
    flat = replace(
        easy,
        verdicts=(easy.verdicts[int(easy.passed.argmax())],) * len(easy.verdicts),
        scores={"rm-1": easy.mean_logprob * 0},
    )
    pools = [Pool("sft", (flat,), unjudged=3)]
    least = replace(
        inputs,
        pools=pools,
        evaluation=evaluate_pools(pools, resamples=20),
        ppo={},
        pairs={},
        chosen="rm-1",
        logprob_weights={},
        notes=(),
    )
    report, html = built(least, tmp_path)
    assert report["pools"]["sft"]["overall"]["rankers"]["rm-1"]["gap_recovered"] is None
    assert "oracle = random" in html
    assert "made no PPO steps" in html
    assert "failed to judge 3 candidates" in html


@pytest.mark.parametrize("trained", [[], ["ppo-2"]])
def test_what_a_round_changes_is_shown_whichever_policies_were_trained(
    inputs: ReportInputs, trained: list[str]
) -> None:
    """With `evaluate.pools` and `mine.pools` a run has rounds without a policy of their own."""
    pools = [pool for pool in inputs.pools if pool.name in ("sft", *trained)]
    evaluation = evaluate_pools(pools, resamples=20)
    some = replace(
        inputs, pools=pools, evaluation=evaluation, ppo={name: inputs.ppo[name] for name in trained}
    )
    found = {row["name"]: row for row in evaluation["comparisons"]}
    changes = page._changes(found, some)
    assert changes["on sft: rm-2 \N{MINUS SIGN} rm-1"] == found["sft/rm-2-rm-1"]
    assert set(changes) == {f"on {name}: rm-2 \N{MINUS SIGN} rm-1" for name in ("sft", *trained)}
    shifts = page._shifts(found, some)
    assert list(shifts) == [f"rm-2 score: {name} \N{MINUS SIGN} sft" for name in trained]


def test_candidates_that_tampered_are_counted(inputs: ReportInputs, tmp_path: Path) -> None:
    _, html = built(inputs, tmp_path)
    assert "tampered" not in html
    first, *others = inputs.pools
    problem, *rest = first.problems
    cheated = replace(problem, verdicts=(Verdict.tampered, *problem.verdicts[1:]))
    pools = [replace(first, problems=(cheated, *rest)), *others]
    _, html = built(replace(inputs, pools=pools), tmp_path)
    assert f"In pool {first.name}, 1 candidate tampered with the tests" in html


def test_the_summary_shows_every_way_of_picking_in_every_pool(inputs: ReportInputs, tmp_path: Path) -> None:
    build_report(inputs, tmp_path)
    report = finish_report(tmp_path, 61.0, 0.5, ["sft"])
    lines = summary_table(report).splitlines()
    assert lines[0] == "24 test problems (py, sh), 8 candidates each"
    assert lines[3].split() == ["sft", "ppo-1", "ppo-2"]
    rows = {line.split()[0]: line.split()[1:4] for line in lines[4:14]}
    rankers = ["rm-1", "rm-1+logprob", "rm-2", "rm-2+logprob"]
    assert list(rows) == ["random", "greedy", "logprob", "logprob_sum", "majority", *rankers, "oracle"]
    random = report["pools"]["sft"]["overall"]["random"]
    assert rows["random"] == [f"{random['value']:.3f}", f"[{random['low']:.3f},", f"{random['high']:.3f}]"]
    assert any(line.startswith("system/2-1") for line in lines)
    made = duration(sum(inputs.seconds.values()) + 0.5)
    assert lines[-1] == f"its stages took {made} to make; this run took 1 min 01 s, for 1 of them were cached"
