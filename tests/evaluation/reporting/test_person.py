import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from pipelines.evaluation import report
from pipelines.evaluation.reporting import html, markdown, person
from pipelines.evaluation.reporting.view import View
from tests.evaluation.report_run import write_run

CAPS = ("gates.yaml: alpha: raised from 0.05 to 0.1", "changes code: <img src=x> @everyone [a](javascript:b) `x`")
APPROVAL = {
    "user": "ada",
    "at": "2026-11-20T10:00:00Z",
    "why": "Read <b>it</b>",
    "review_url": "https://github.com/o/r/pull/7#pullrequestreview-1",
}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return report.collect(write_run(tmp_path_factory.mktemp("run"), "pass"))


def test_without_a_cap_nothing_is_said(view: View) -> None:
    assert person.write(view, 20) == ""
    assert "CODEOWNER" not in markdown.render(view)
    assert 'id="person"' not in html.render(view)


def test_each_cap_stands_near_the_top_of_both_reports(view: View) -> None:
    held = view._replace(verdict="manual_review", reasons=CAPS, caps=CAPS)
    page, site = markdown.render(held), html.render(held)
    assert page.index("A CODEOWNER has to look at these 2 things first") < page.index("| Gate |")
    assert site.index("A CODEOWNER has to look") < site.index('id="gates"')
    assert "alpha: raised from 0.05 to 0.1" in page
    assert "alpha: raised from 0.05 to 0.1" in site
    assert page.count("raised from 0.05") <= 2  # the headline may say the first one as well


def test_an_approval_says_who_when_why_and_where(view: View) -> None:
    lifted = view._replace(reasons=("approved by ada", *CAPS), caps=CAPS, approval=APPROVAL)
    page, site = markdown.render(lifted).replace("&#8203;", ""), html.render(lifted)
    for part in ("ada", "2026-11-20T10:00:00Z", APPROVAL["review_url"]):
        assert part in page
        assert part in site
    assert "**Pass.** approved by ada" in page


def test_nothing_in_a_cap_or_an_approval_is_live(view: View) -> None:
    hostile = view._replace(
        caps=(*CAPS, "x" * 10_000),
        approval={**APPROVAL, "why": "<script>alert(1)</script> @all", "review_url": 'https://e.example/"><script>'},
    )
    site = html.render(hostile)
    rendered = MarkdownIt("commonmark", {"html": True}).render(person.write(hostile, 20))
    for text in (rendered, site[site.index('id="person"') : site.index("<nav")]):
        assert not re.search(r"<(img|script|b)\b|href=\"(?!#)", text), text
    assert "@everyone" not in person.write(hostile, 20)


@pytest.mark.parametrize("link", ["", "http://a", "javascript:x", "https://a b", "https://a)b", "https://a\nb", "//a"])
def test_only_a_plain_address_becomes_a_link(link: str) -> None:
    assert not person.is_plain_link(link)


def test_an_error_before_anything_was_measured_has_a_report(tmp_path: Path) -> None:
    from pipelines.evaluation.baseline import Baseline
    from pipelines.evaluation.deciding.caps import unmeasured
    from pipelines.evaluation.deciding.judgement import write_decision

    nothing = Baseline("none", reason="nothing was measured, so nothing is compared")
    for verdict, reason in (("error", "rows.parquet: forged"), ("pass", "only documentation changed")):
        write_decision(tmp_path, unmeasured(verdict, reason), nothing, {"commit": "c" * 40, "input_digest": ""})
        found = report.write(tmp_path)
        page = (tmp_path / "evaluation/report.md").read_text().replace("&#8203;", "")
        assert (found.verdict, reason.split(":")[0] in page, "First release" in page) == (verdict, True, False)
