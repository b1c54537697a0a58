import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.evaluation import report
from pipelines.evaluation.reporting import html as report_html
from pipelines.evaluation.reporting.view import View
from tests.evaluation.report_run import HOSTILE, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Elements, attributes, and what stands in <style> and <script>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self.words: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self._open = f"{tag} {attributes.get('type') or ''}".strip() if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open] = self.inside.get(self._open, "") + data
        else:
            self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return report.collect(write_run(tmp_path_factory.mktemp("run"), "fail"))


@pytest.fixture(scope="module")
def page(view: View) -> Page:
    return Page(report_html.render(view))


def test_the_page_refers_to_nothing_outside_itself(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "video", "audio"}
        for name in ("src", "srcset", "action", "poster", "data", "formaction", "background"):
            assert name not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page.inside["style"]
    assert "@import" not in page.inside["style"]
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|import|eval|innerHTML)\s*[(=]", page.inside["script"])


def test_the_policy_allows_only_this_style_and_this_script(page: Page) -> None:
    policy = next(attributes["content"] for tag, attributes in page.elements if attributes.get("http-equiv"))
    hashes = {
        name: base64.b64encode(hashlib.sha256(page.inside[name].encode()).digest()).decode()
        for name in ("style", "script")
    }
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "base-uri 'none'; form-action 'none'"
    )
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_hostile_text_adds_no_element_anywhere(view: View) -> None:
    plain = Page(report_html.render(with_text(view, "harmless")))
    hostile = Page(report_html.render(with_text(view, "".join(HOSTILE))))
    assert [(tag, list(found)) for tag, found in hostile.elements] == [
        (tag, list(found)) for tag, found in plain.elements
    ]
    assert any("alert(1)" in words for words in hostile.words)


def with_text(view: View, text: str) -> View:
    """Put `text` wherever a model, a data file, a baseline or a declared file could."""

    def loud(example):
        before = example.before and example.before._replace(output=f"{text} before")
        return example._replace(
            output=text, gold=text, error=text, inputs=((text, text),), before=before, slice=example.slice and text
        )

    suites = tuple(suite._replace(examples=tuple(loud(example) for example in suite.examples)) for suite in view.suites)
    gates = tuple(
        gate._replace(checks=tuple(check._replace(reason=text) for check in gate.checks)) for gate in view.gates
    )
    changes = view.changes._replace(
        parameters=(view.changes.parameters[0]._replace(key=text, after=text),), unreadable=(text,)
    )
    return view._replace(
        suites=suites,
        gates=gates,
        changes=changes,
        reasons=(text,),
        error_rates=(text,),
        slices=tuple(item._replace(slice=f"{text}{index}") for index, item in enumerate(view.slices)),
        baseline=view.baseline._replace(ref=text, reason=text),
    )


def test_the_rows_survive_their_way_into_the_script_unchanged(view: View, page: Page) -> None:
    data = json.loads(page.inside["script application/json"])
    rows = {row["id"]: row for row in data["rows"]}
    for example in view.suites[0].examples:
        assert rows[example.id].get("output", "") == example.output
    assert "<" not in page.inside["script application/json"]


def test_both_sides_of_a_moved_row_are_there_without_javascript(page: Page) -> None:
    assert page.count("del") > 3
    assert page.count("ins") > 3
    text = "".join(page.words)
    for title in ("Expected", "Baseline", "Candidate", "Regressed", "How to get to green"):
        assert title in text


def test_intervals_slices_latency_loss_and_labels_are_drawn(page: Page, view: View) -> None:
    tracks = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("class") == "track"]
    measured = sum(check.value is not None for _, check in view.checks)
    assert len(tracks) == measured + len(view.slices)
    labels = [attributes.get("aria-label") for tag, attributes in page.elements if tag == "figure"]
    assert labels == ["Share of requests answered within a time", "Training loss by step"]
    assert sum(attributes.get("class") == "confusion" for _, attributes in page.elements) == 3


def test_every_position_in_a_plot_is_inside_it(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("x1", "x2", "cx", "x", "y1", "y2"):
            value = attributes.get(name) or ""
            if tag in ("line", "circle", "rect", "text") and value.endswith("%"):
                assert 0 <= float(value[:-1]) <= 100


@pytest.mark.parametrize(
    ("verdict", "baseline", "words"),
    [
        ("pass", "fetched", ["Pass", "hold.", "Compared row by row"]),
        ("fail", "fetched", ["Fail", "1 of 8 required checks fails"]),
        ("manual_review", "fetched", ["Manual review", "undecided"]),
        ("error", "fetched", ["Error", "could not be measured"]),
        ("pass", "none", ["Pass", "nothing was ever released"]),
        ("manual_review", "unavailable", ["Baseline missing", "could not be fetched"]),
    ],
)
def test_every_verdict_and_state_of_the_baseline_is_said_in_words(
    tmp_path: Path, verdict: str, baseline: str, words: list[str]
) -> None:
    page = Page(report_html.render(report.collect(write_run(tmp_path, verdict, baseline=baseline))))
    text = " ".join("".join(page.words).split())
    for word in words:
        assert word in text
    assert page.elements[0] == ("html", {"lang": "en", "data-verdict": verdict})


def test_rows_beyond_the_limit_are_left_out_with_a_word_and_moved_ones_stay(view: View) -> None:
    suite = view.suites[0]
    many = suite._replace(
        examples=tuple(
            example._replace(id=f"{example.id}-{copy}", move=example.move if copy == 29 else "same")
            for copy in range(30)
            for example in suite.examples
        )
    )
    page = Page(report_html.render(view._replace(suites=(many,))))
    rows = json.loads(page.inside["script application/json"])["rows"]
    assert len(rows) == report_html.MAX_ROWS
    moved = sum(example.move in ("regressed", "improved") for example in many.examples)
    assert sum(row.get("move") in ("regressed", "improved") for row in rows) == moved
    assert "5,000 of 7,200 rows" in "".join(page.words)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_runs_the_page_under_its_policy_and_fills_the_table(tmp_path: Path) -> None:
    write_run(tmp_path, "fail")
    report.write(tmp_path)
    assert CHROMIUM is not None
    found = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--dump-dom",
            f"file://{tmp_path / 'evaluation' / 'report.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    page = Page(found.stdout)
    rows = [attributes for tag, attributes in page.elements if tag == "tr" and attributes.get("class") == "row"]
    assert len(rows) == 50
    assert "320 of 320 rows" in "".join(page.words)
    assert "Content Security Policy" not in found.stderr
    assert "Uncaught" not in found.stderr
