"""The pages of results: true to the summaries, whole with what is missing, kept when partly new."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softlabel.shards.errors import StoreError, UsageError
from softlabel.tools.experiments import campaign, pages, reasons, recipes
from softlabel.tools.experiments.claims import Bars, Bound, Claim, Curves, Findings, Table
from softlabel.tools.experiments.data_sets import data_set
from softlabel.tools.experiments.intervals import Spread, spread
from softlabel.tools.experiments.registry import EXPERIMENTS
from softlabel.tools.experiments.results import Results
from softlabel.tools.experiments.scope import Scope
from softlabel.tools.experiments.settings import ExperimentsConfig
from softlabel.tools.experiments.summary import Part, Summary, read_summary, write_summary

EVIL = "a | b <script>"


def findings(value: float = 0.91) -> Findings:
    claim = Claim(
        name="blind-main",
        says="Students of letters keep 80 %.",
        source="a paper",
        figure=spread([value - 0.01, value, value + 0.01]),
        unit="share",
        bound=Bound(relation=">=", value=0.8),
        binding=True,
    )
    bars = {"letters": claim.figure, "one seed": Spread(mean=0.5, half=None, count=1)}
    return Findings(
        claims=[claim, replace(claim, name="other", figure=spread([0.5]), says=EVIL)],
        tables=[Table(title="Students", head=("set", "accuracy"), rows=[("letters", "91 %")])],
        curves=[Curves(title="Agreement", label="agreement", series={"u": ([1, 2, 4], [0, 0, 1])})],
        bars=[Bars(title="Students", label="accuracy", unit="share", bars=bars)],
        left_out=["blind-noise: no result of noise"],
    )


def part(**changes: Any) -> Part:
    values: dict[str, Any] = {
        "findings": findings().to_dict(),
        "date": "2026-01-02",
        "seeds": 3,
        "scale": 1.0,
        "students": 12,
        "seconds": 90.0,
        "machine": {"cpu": "a processor", "cores": 2, "python": "3.12", "torch": "2.0"},
    }
    return Part(**{**values, **changes})


def summary(data: str = "digits", **parts: Part) -> Summary:
    return Summary(data=data, title=f"title of {data}", parts=parts or {"blind": part()})


def test_the_markdown_page_says_all_that_was_found():
    text = pages.markdown([summary()])
    rows = [line for line in text.splitlines() if line.startswith("| Students of letters")]
    assert rows == [
        "| Students of letters keep 80 %. | a paper | 91.0 ± 2.5 % | >= 80 % | reproduced |"
    ]
    assert "1 not reproduced, 1 reproduced, 1 skipped or failed" in text
    assert "- blind: not judged: blind-noise: no result of noise" in text
    assert "| letters | 91 % |" in text
    assert "2026-01-02, 12 students of 3 seed(s), 1.5 minutes of one core; a processor" in text
    assert "TRIAL" not in text


@pytest.mark.parametrize(
    ("mean", "half", "bound", "marked"),
    [
        (0.85, 0.06, 0.8, True),
        (0.85, 0.04, 0.8, False),
        (0.75, 0.06, 0.8, True),
        (0.81, None, 0.8, False),
        (0.81, 0.5, None, False),
    ],
)
def test_a_verdict_that_the_seeds_do_not_settle_is_marked(mean, half, bound, marked):
    found = findings()
    claim = replace(
        found.claims[0],
        figure=Spread(mean=mean, half=half, count=3),
        bound=None if bound is None else Bound(relation=">=", value=bound),
    )
    found.claims = [claim]
    shown_part = summary(blind=part(findings=found.to_dict()))
    (row,) = pages.claim_rows(shown_part)
    assert row[4] == claim.verdict + (" (bound within the interval)" if marked else "")
    assert ("1 of these with the bound within the interval" in pages.counts(shown_part)) == marked


def test_no_cell_breaks_a_table():
    text = pages.markdown([summary()])
    row = next(line for line in text.splitlines() if "<script>" in line)
    assert r"a \| b" in row
    assert row.replace(r"\|", "").count("|") == 6


def test_a_trial_says_so():
    text = pages.markdown([summary(blind=part(scale=0.01))])
    assert "TRIAL with 0.01 of the steps" in text


def test_skipped_and_failed_students_are_named_and_counted():
    found = summary(blind=part(skipped=["clip art: no client"], failed=["noise: by 0"]))
    text = pages.markdown([found])
    assert "3 skipped or failed" in text
    assert "- blind: skipped: clip art: no client" in text
    assert "- blind: failed: noise: by 0" in text


def test_a_reason_stands_beside_its_verdict_and_no_other(monkeypatch):
    monkeypatch.setattr(pages, "REASONS", {"digits/other": "Too few fonts."})
    text = pages.markdown([summary(), summary("mnist")])
    assert text.count("not reproduced. Too few fonts.") == 1


def test_reasons_are_of_claims_in_the_form_data_claim():
    assert all(key.split("/")[0] in ("digits", "mnist", "cifar10") for key in reasons.REASONS)


def test_the_html_page_has_the_same_claims_with_drawings_and_nothing_unescaped():
    document = pages.report([summary()])
    assert "91.0 ± 2.5 %" in document
    assert "<script>" not in document
    assert document.count("<svg") == 2
    assert "http-equiv" not in document
    assert "src=" not in document


def test_a_data_sets_summary_is_read_as_it_was_written(tmp_path):
    written = summary(blind=part(skipped=["x"]), mixed=part())
    write_summary(tmp_path, written)
    found = read_summary(tmp_path, "digits")
    assert found is not None
    assert json.dumps(found.to_dict()) == json.dumps(written.to_dict())
    assert read_summary(tmp_path, "mnist") is None


def test_another_formats_summary_is_refused(tmp_path):
    (tmp_path / "experiments-digits.json").write_text('{"format": 99, "data": "digits"}')
    with pytest.raises(StoreError, match="format 1"):
        read_summary(tmp_path, "digits")


def test_a_partial_campaign_keeps_what_others_found(tmp_path, monkeypatch):
    """Only digits' blind experiment is new; its other experiment and MNIST stay."""
    config = ExperimentsConfig(
        data=("digits",),
        only=("blind",),
        folder=tmp_path / "work",
        results=tmp_path / "docs/results.md",
        recipes=tmp_path / "docs/recipes.md",
        summaries=tmp_path / "kept",
    )
    write_summary(config.summaries, summary(blind=part(seeds=1), tails=part(date="2020-01-01")))
    write_summary(config.summaries, summary("mnist", blind=part(date="2021-01-01")))
    monkeypatch.setattr(campaign, "do", lambda tasks, folder, **_: campaign.Outcome())
    campaign.campaign(config)
    found = read_summary(config.summaries, "digits")
    assert found is not None
    assert list(found.parts) == ["blind", "tails"]
    assert found.parts["blind"].seeds == 3
    assert found.parts["tails"].date == "2020-01-01"
    text = config.results.read_text()
    assert "2020-01-01" in text
    assert "2021-01-01" in text
    assert (config.folder / "report.html").exists()


def test_pages_are_rendered_again_without_a_run(tmp_path):
    config = ExperimentsConfig(
        render=True,
        folder=tmp_path / "work",
        results=tmp_path / "results.md",
        recipes=tmp_path / "recipes.md",
        summaries=tmp_path / "kept",
    )
    with pytest.raises(UsageError, match="no results"):
        campaign.campaign(config)
    write_summary(config.summaries, summary())
    config.recipes.write_text("It has <!--digits/blind-main-->?<!---->.")
    campaign.campaign(config)
    assert "91.0 ± 2.5 %" in config.results.read_text()
    assert config.recipes.read_text() == "It has <!--digits/blind-main-->91.0 ± 2.5 %<!---->."


def test_an_experiment_that_does_not_fit_the_data_is_refused(tmp_path):
    config = ExperimentsConfig(data=("mnist",), only=("tails",), folder=tmp_path / "work")
    with pytest.raises(UsageError, match="--only tails"):
        campaign.campaign(config)


def test_figures_are_filled_in_by_name_again_and_again():
    text = (
        "a <!--digits/blind-main-->old<!----> b <!--digits/blind/letters/accuracy-->x<!---->\n"
        "c <!--digits/tails/letters/accuracy-->x<!----> d <!--mnist/blind-main--><!---->"
    )
    once = recipes.filled(text, [summary()])
    assert once == (
        "a <!--digits/blind-main-->91.0 ± 2.5 %<!----> b "
        "<!--digits/blind/letters/accuracy-->91 %<!---->\n"
        "c <!--digits/tails/letters/accuracy-->not measured yet<!----> d "
        "<!--mnist/blind-main-->not measured yet<!---->"
    )
    assert recipes.filled(once, [summary()]) == once
    with pytest.raises(UsageError, match="DATA/CLAIM"):
        recipes.filled("<!--digits-->x<!---->", [])


def test_the_recipes_name_claims_and_tables_that_exist():
    page = Path(__file__).parents[2] / "docs/recipes.md"
    names = re.findall(r"<!--([^<>]+?)-->", page.read_text(encoding="utf-8"))
    assert names
    for data, *rest in (name.split("/") for name in names):
        if len(rest) == 3:
            assert rest[0] in EXPERIMENTS
            continue
        scope = Scope(data=data_set(data), seeds=1)
        found = [e.findings(scope, Results({})).left_out for e in EXPERIMENTS.values()]
        assert rest[0] in {line.partition(":")[0] for lines in found for line in lines}
