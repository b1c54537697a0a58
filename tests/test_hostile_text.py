"""Hostile text through everything that people read: comment, page, summary, log. Nothing of it may be live."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.github import runner
from pipelines.core.markdown import block, code, inline
from pipelines.evaluation import report
from pipelines.evaluation.reporting import html as report_html
from pipelines.evaluation.reporting import markdown as report_markdown
from pipelines.evaluation.reporting.changes import PromptChange, TextChange
from pipelines.evaluation.reporting.difference import differences
from pipelines.evaluation.reporting.hidden import uncover
from pipelines.evaluation.reporting.view import View
from pipelines.review.comment import compose, sentence
from tests.comment_page import COMMAND, Page, alive, render
from tests.evaluation.report_run import write_run
from tests.hostile import CORPUS, TEXTS, put_everywhere

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NUMBERED = pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
PLACES: dict[str, Callable[[str], str]] = {
    "alone": "{}".format,
    "sentence": "before {} after".format,
    "cell": "| a | b |\n|---|---|\n| {0} | {0} |\n".format,
    "heading": "### {}".format,
    "item": "- {}\n- next".format,
    "quote": "> {}".format,
    "bold": "**{}**".format,
    "changed": "same <del>{0}</del> <ins>{0}</ins> same".format,
    "small": "<sub>{}</sub>".format,
}
MERMAID = (
    r'%%\{init: [\w{}": ,#]+\}%%\nxychart-beta\n    title "[\w ,:()-]+"\n    x-axis \["[\w -]+"(, "[\w -]+")*\]\n'
    r'    y-axis "percent" -?\d+ --> 100\n    bar \[[\d., -]+\](\n    line \[[\d., -]+\])?\n'
)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """A run with something in every section, few rows."""
    found = report.collect(write_run(tmp_path_factory.mktemp("run"), "fail", rows=40))
    suites = tuple(suite._replace(examples=suite.examples[:40]) for suite in found.suites)
    changes = found.changes._replace(unreadable=("prompts/broken.yml: is no YAML",))
    caps = ("The pull request changes `gates.yaml`.", "It comes from a fork.")
    return found._replace(suites=suites, changes=changes, reasons=("slices got worse",), caps=caps)


# --- the model of GitHub itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markdown", "what"),
    [
        ("cc @octocat/team", "mention"),
        ("mail a@evil.example", "element a"),
        ("fixes #1", "issue"),
        ("see GH-12", "issue"),
        ("since a5c3785ed8d6", "commit"),
        ("https://evil.example", "element a"),
        ("www.evil.example", "element a"),
        ("[x](javascript:alert)", "element a"),
        ("![x](y.png)", "element img"),
        ("<b onclick=x>y</b>", "element b"),
        ("<https://evil.example>", "element a"),
        (":tada:", "emoji"),
        ("$x$", "formula"),
        ("a[^1]\n\n[^1]: b", "element section"),
        ("> &#91;!NOTE] b", "alert"),
        ("- [x] done", "element input"),
        ("- &#91;x] done", "alert or task"),
        ("<!-- hidden -->", "comment"),
        ("</details>", "unbalanced"),
        ("a\u202eb", "hidden"),
    ],
)
def test_the_model_of_github_sees_what_is_live(markdown: str, what: str) -> None:
    assert any(found.startswith(what) for found in alive(render(markdown)))


def test_the_model_of_github_leaves_code_and_plain_words_alone() -> None:
    assert alive(render("plain, **bold** and `@octocat #1 https://x.example :tada: $x$`")) == []


# --- single texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_no_text_of_the_corpus_is_live_in_any_place(place: str) -> None:
    for text in CORPUS:
        for write in (inline, code):
            page = render(PLACES[place](write(text) or "x"))
            assert alive(page) == [], (write, text)
            assert page.skeleton == render(PLACES[place]("x")).skeleton, (write, text)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from(sorted(PLACES)), st.sampled_from([inline, code]))
def test_no_text_at_all_is_live_in_any_place(text: str, place: str, write: Callable[[str], str]) -> None:
    page = render(PLACES[place](write(text) or "x"))
    assert alive(page) == []
    assert page.skeleton == render(PLACES[place]("x")).skeleton


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_no_text_leaves_a_block(text: str) -> None:
    page = render(f"before\n\n{block(text)}\n\nafter")
    assert alive(page) == []
    assert page.skeleton == ["p", "pre", "p"]


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
def test_two_versions_of_a_prompt_side_by_side_are_dead_too(before: str, after: str) -> None:
    """What is harmless in one piece and harmless in the next must not become a link where both meet."""
    assert alive(changed_prompt(before, after)) == []


@pytest.mark.parametrize(
    "text",
    ["fix #{}1 now", "see www{}.evil.example now", "see https:{}//evil.example now", "at a5c3785{}deadbeef", "GH-{}12"],
)
@pytest.mark.parametrize("hidden", ["\u200b", "\u2060", "\x1b[31m", "\U000e0041", " "])
def test_taking_a_hidden_character_out_leaves_no_link_behind(text: str, hidden: str) -> None:
    assert alive(changed_prompt(text.format(hidden), text.format(""))) == []


def test_a_change_that_cannot_be_seen_is_said_in_words() -> None:
    page = changed_prompt("Answer politely.", "Answer\u200b politely.\U000e0041")
    assert "hidden characters" in "".join(page.inside("ins"))


def changed_prompt(before: str, after: str) -> Page:
    from pipelines.evaluation.reporting.changes import Changes
    from pipelines.evaluation.reporting.markdown_changes import write

    text = TextChange("user", differences(before, after))
    changes = Changes(is_known=True, prompts=(PromptChange("prompts/x.prompt.yml", "edited", (text,)),))
    return render(write(EMPTY._replace(changes=changes), 20))


EMPTY = View(
    verdict="error",
    reasons=(),
    created="",
    input_digest="",
    commit="",
    baseline=report._part(report.Baseline, {}),
    gates=(),
    slices=(),
    changes=report.changes.Changes(is_known=False),
    suites=(),
    curve=(),
    training={},
    error_rates=(),
    smallest_detectable=(),
)

# --- the comment ----------------------------------------------------------------------------------------------


def comment(view: View, text: str) -> str:
    """Write the comment with `text` in front of everything that anybody but us could have written."""
    return report_markdown.render(put_everywhere(view, lambda old: f"{text}{old}"))


COMPARED = "4f0c2a9d1b7e35f6a8c4d2e1b0a9f8e7d6c5b4a3"


def is_dead(markdown: str) -> Page:
    """Hold a whole comment against the model; the marker and the alert of the verdict are ours."""
    assert len(markdown) <= report_markdown.MAX_CHARACTERS
    marker, _, rest = markdown.partition("\n\n")
    assert marker == report_markdown.MARKER
    alert, rest = rest.split("\n", 1)
    assert re.fullmatch(r"> \[!(TIP|CAUTION|WARNING|IMPORTANT)\]", alert)
    page = render(rest)
    compared = f"commit in 'Compared row by row with v1.1.0 ({COMPARED})"  # Git's own name, which GitHub links
    assert [found for found in alive(page) if not found.startswith(compared)] == []
    assert not COMMAND.search(markdown)
    drawn = [attributes.get("lang") for tag, attributes in page.elements if tag == "pre"]
    assert drawn in ([], ["mermaid"])
    if drawn:
        assert re.fullmatch(MERMAID, "".join(page.inside("pre")))
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in rest.splitlines() if line.startswith("|")]
    assert set(widths) <= {6, 8, 9}  # cost; gates; slices
    return page


@NUMBERED
def test_nothing_hostile_is_live_in_the_comment(view: View, text: str) -> None:
    page = is_dead(comment(view, text))
    if len(text) < 60:  # a longer one makes sections give way
        assert page.skeleton == is_dead(comment(view, "x ")).skeleton


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_no_text_at_all_is_live_in_the_comment(view: View, text: str) -> None:
    is_dead(comment(view, text))


@pytest.mark.parametrize("text", ["$", "<", "`a`", "| ", "\u05d0", "word ", "@a #1 "])
def test_a_megabyte_of_anything_fits_and_is_seen_to_be_cut(view: View, text: str) -> None:
    big = text * (1_000_000 // len(text))
    few = view._replace(suites=tuple(suite._replace(examples=suite.examples[:3]) for suite in view.suites))
    loud = put_everywhere(few, lambda old: big + old)
    assert "…" in "".join(words for _, words in is_dead(report_markdown.render(loud)).texts)


@pytest.mark.parametrize(
    "link", ["https://evil.example/#x", "https://evil.example/a/b/pull/1#pullrequestreview-1)x", *CORPUS]
)
def test_of_an_approval_nothing_is_live_but_the_link_to_a_review(view: View, link: str) -> None:
    approval = {"user": "@octocat #1", "at": link, "why": link, "review_url": link}
    is_dead(report_markdown.render(view._replace(approval=approval)))
    assert not [tag for tag, found in Page(report_html.render(EMPTY._replace(approval=approval))).elements
                if tag == "a" and not (found["href"] or "").startswith("#")]  # fmt: skip


def test_the_review_that_approved_is_linked(view: View) -> None:
    link = "https://github.com/octo-org/repo/pull/7#pullrequestreview-12"
    page = render(report_markdown.render(view._replace(approval={"user": "ann", "review_url": link})))
    assert [found["href"] for tag, found in page.elements if tag == "a"] == [link]


@pytest.mark.parametrize("number", [1e308, -1e308, 5e-324, -0.0])
def test_numbers_that_no_metric_has_break_neither_report(view: View, number: float) -> None:
    wild = put_numbers(view, number)
    is_dead(report_markdown.render(wild))
    assert not {"nan%", "inf%", "-inf%"} & {
        value for _, attributes in Page(report_html.render(wild)).elements for value in attributes.values()
    }


def put_numbers(value: Any, number: float) -> Any:
    if isinstance(value, float):
        return number
    if isinstance(value, tuple) and hasattr(value, "_replace"):
        return value._replace(**{name: put_numbers(field, number) for name, field in value._asdict().items()})
    if isinstance(value, list | tuple):
        return type(value)(put_numbers(item, number) for item in value)
    return {key: put_numbers(item, number) for key, item in value.items()} if isinstance(value, dict) else value


# --- the page -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(0, len(CORPUS), 16))
def test_nothing_hostile_adds_an_element_or_an_address_to_the_page(view: View, start: int) -> None:
    text = "\n".join(text[:300] for text in CORPUS[start : start + 16])
    plain, page = (
        Page(written_page(put_everywhere(view, lambda old, start=start: f"{start}{old}"))) for start in ("x", text)
    )
    assert shape(page) == shape(plain)
    assert page.comments == []
    for tag, attributes in page.elements:
        assert tag not in ("a", "use") or re.fullmatch(r"#[a-z_]+", attributes["href"] or "")
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "action")]
    for enclosing, words in page.texts:
        if not {"script", "style"} & set(enclosing):
            assert not UNSEEN.search(words)


def test_the_page_writes_out_what_nobody_sees_and_keeps_what_belongs_to_words() -> None:
    assert uncover("a\u202eb\u200bc\0\U000e0041\ud800") == r"a\u202eb\u200bc\x00\U000e0041\ud800"
    plain = "tab\t line\n wide\u3000 \u00a0 \u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469 \u2764\ufe0f e\u0301"
    assert uncover(plain) == plain


def written_page(view: View) -> str:
    found = report_html.render(view)
    found.encode()  # a lone surrogate could not be written to a file
    return found


def shape(page: Page) -> list[tuple[str, list[str]]]:
    """Elements with the names of their attributes; words may change in one place more or less."""
    return [(tag, sorted(found)) for tag, found in page.elements if tag not in ("ins", "del", "wbr")]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_runs_nothing_of_it_and_shows_nothing_hidden(view: View, tmp_path: Path) -> None:
    loud = put_everywhere(view, lambda old: f"{''.join(text for text in CORPUS if len(text) < 200)}{old}")
    page = tmp_path / "report.html"
    page.write_text(written_page(loud), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    found = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=True)
    table = re.search(r'<table class="browser">.*?</table>', found.stdout, re.DOTALL)
    assert table
    assert "alert(1)" in table[0]
    assert {tag for tag, _ in Page(table[0]).elements} == {"table", "thead", "tbody", "tr", "th", "td", "button"}
    assert not UNSEEN.search(table[0])
    assert "Content Security Policy" not in found.stderr
    assert "Uncaught" not in found.stderr


# --- files ----------------------------------------------------------------------------------------------------


def test_hostile_files_of_all_kinds_get_both_reports(tmp_path: Path) -> None:
    """Names of files, keys of YAML, decisions with lone surrogates: as a pull request could bring them."""
    root = write_run(tmp_path, "fail", rows=20)
    folder = root / "evaluation"
    decision = json.loads((folder / "decision.json").read_text())
    decision["reasons"] = [text.encode("utf-8", "replace").decode() for text in CORPUS]
    decision["gates"][0]["name"] = "\0@octocat|"
    decision["slices"][0]["slice"] = "</td>|\n# x"
    (folder / "decision.json").write_text(json.dumps(decision))
    prompts = root / "prompts"
    for index, name in enumerate(
        ("@octocat #1", "a|b`c", "`![x](y)`", "\u202egpj", "www.evil.example\n# x", b"\xff\xfe")
    ):
        name = os.fsdecode(name)
        (prompts / f"{name}.prompt.yml").write_text(
            json.dumps({"messages": [{"role": CORPUS[index], "content": "a"}], CORPUS[index + 20] or "x": CORPUS[50]})
        )
    report.write(root)
    is_dead((folder / "report.md").read_text(encoding="utf-8"))
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert not {"img", "a"} & {tag for tag, found in page.elements if not (found.get("href") or "").startswith("#")}


def test_rows_that_are_no_utf_8_are_refused_in_one_line(tmp_path: Path) -> None:
    root = write_run(tmp_path, rows=20)
    path = root / "evaluation" / "triage" / "rows.parquet"
    table = parquet.read_table(path)
    offsets = arrow.py_buffer(b"".join(index.to_bytes(4, "little") for index in (0, *range(2, 2 * len(table) + 2, 2))))
    broken = arrow.StringArray.from_buffers(len(table), offsets, arrow.py_buffer(b"\xff\xfe" * len(table)))
    at = table.schema.get_field_index("output")
    parquet.write_table(table.set_column(at, "output", broken), path)
    with pytest.raises(ConfigError, match=r"rows\.parquet: not readable as rows"):
        report.write(root)


def test_three_hundred_changed_prompts_are_counted_and_the_first_are_named(view: View) -> None:
    long = "word " * 5_000
    text = TextChange("user", differences("old " + long, long + "new"))
    prompts = tuple(PromptChange(f"prompts/p{n}.prompt.yml", "edited", (text,)) for n in range(300))
    written = report_markdown.render(view._replace(changes=view.changes._replace(prompts=prompts)))
    words = "".join(words for _, words in is_dead(written).texts)
    shown = len(re.findall(r"Prompt prompts/", words))
    assert 0 < shown < 300
    assert f"{300 - shown} more prompts changed, in report.html: prompts/p{shown}.prompt.yml" in words


# --- logs, outputs, summary -----------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.one_of(TEXTS, st.sampled_from(CORPUS)))
def test_a_line_of_the_log_is_one_line_and_no_command(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert not COMMAND.search(line)
    assert not UNSEEN.search(line)


@settings(max_examples=150, deadline=None)
@given(st.one_of(TEXTS, st.sampled_from(CORPUS)))
def test_an_output_is_read_back_as_it_was_and_forges_no_other(text: str) -> None:
    with runner_files() as (output, _):
        runner.set_outputs({"first": text, "verdict": "fail"})
        found = as_the_runner_reads(output.read_bytes())
    assert list(found) == ["first", "verdict"]
    assert found["verdict"] == "fail"
    assert found["first"] == text.encode("utf-8", "backslashreplace").decode().replace("\0", "\ufffd")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["error", "warning", "notice"]),
    st.one_of(TEXTS, st.sampled_from(CORPUS)),
    st.one_of(st.none(), TEXTS),
    st.one_of(st.none(), TEXTS),
)
def test_an_annotation_is_one_command_with_the_fields_it_was_given(
    level: Literal["error", "warning", "notice"], message: str, path: str | None, title: str | None
) -> None:
    with runner_files(), contextlib.redirect_stderr(io.StringIO()) as log:
        runner.annotate(level, message, path=path, line=3, title=title)
    [line] = re.split("[\r\n]+", log.getvalue().rstrip("\n"))
    command = re.fullmatch(r"::(\w+)((?: [^:]*)?)::(.*)", line)
    assert command
    assert command[1] == level
    names = [item.partition("=")[0] for item in command[2].strip().split(",")]
    assert names == [name for name, value in (("file", path), ("line", "3"), ("title", title)) if value]


def test_a_summary_shows_the_comment_as_it_is_and_stays_below_its_limit(view: View) -> None:
    with runner_files() as (_, summary):
        for text in CORPUS[:30]:
            runner.add_summary(comment(view, text))
        runner.add_summary("x" * 3_000_000)
        assert summary.stat().st_size < 1024 * 1024
        assert comment(view, CORPUS[3]).rstrip() in summary.read_text(encoding="utf-8")


@contextlib.contextmanager
def runner_files() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as environment:
        output, summary = Path(folder, "output"), Path(folder, "summary")
        environment.setenv("GITHUB_ACTIONS", "true")
        environment.setenv("GITHUB_OUTPUT", str(output))
        environment.setenv("GITHUB_STEP_SUMMARY", str(summary))
        environment.setenv("GITHUB_WORKSPACE", folder)
        yield output, summary


def as_the_runner_reads(written: bytes) -> dict[str, str]:
    """Read a file of outputs as the runner does: `name=value` lines, or `name<<delimiter` up to that line."""
    found: dict[str, str] = {}
    lines = iter(written.decode("utf-8").split("\n"))
    for line in lines:
        name, _, delimiter = line.partition("<<")
        if delimiter and "=" not in name:
            found[name] = "\n".join(iter(lambda: next(lines), delimiter))
        elif line:
            name, _, found[name] = line.partition("=")
    return found


# --- the comment on the pull request --------------------------------------------------------------------------

HEAD = "a5c3785ed8d6a35868bc169f07e40e889087fd2e"
RUN = "https://github.com/octo-org/repo/actions/runs/7"


@pytest.mark.parametrize("state", ["pending", "error"])
def test_a_message_adds_nothing_live_to_the_heading_of_a_comment(state: str) -> None:
    for text in CORPUS:
        body = compose(state, sentence(state, text), head=HEAD, run_url=RUN)
        assert what_is_alive(body) == what_is_alive(compose(state, "x", head=HEAD, run_url=RUN)), text


def test_around_a_report_only_the_commit_and_the_run_are_live(view: View) -> None:
    for text in CORPUS[::4]:
        found = what_is_alive(compose("fail", comment(view, text), head=HEAD, run_url=RUN))
        assert found == ["element a", "attribute href of a", f"commit in 'Commit {HEAD} · '"]


def what_is_alive(body: str) -> list[str]:
    """Return what of a body is live, without the marker and the report's alert."""
    marker, _, rest = body.partition("\n\n")
    assert marker == report_markdown.MARKER
    assert not COMMAND.search(body)
    return alive(render(re.sub(r"^> \[!(?:TIP|CAUTION|WARNING|IMPORTANT)\]\n", "", rest, count=1, flags=re.MULTILINE)))
