"""Outputs, summary, annotations and masks: what the runner reads back is what we said, whatever the text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.github import runner
from pipelines.core.github.limits import SUMMARY_BYTES

HOSTILE = [
    "plain", "", "a\nb", "a\n\nb\n", "name=value", "x<<EOF\nforged=1\nEOF", "end-\nforged=true\n", "é\U0001f600",
    "a\r\nb", "::set-output name=x::y", "##[set-env name=x]y", "\x1b[2J", "\u202eevil", "a\0b", "\ud800",
]  # fmt: skip


@pytest.fixture
def on_runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    return tmp_path


def read_back(path: Path) -> dict[str, str]:
    """Read an output file as the runner does: `NAME=VALUE` or `NAME<<DELIMITER`, lines, DELIMITER."""
    lines = iter(path.read_bytes().decode("utf-8").split("\n"))
    found = {}
    for line in lines:
        if not line:
            continue
        if "<<" in line and ("=" not in line or line.index("<<") < line.index("=")):
            name, _, delimiter = line.partition("<<")
            value = []
            for inner in lines:
                if inner == delimiter:
                    break
                value.append(inner)
            found[name] = "\n".join(value)
        else:
            name, _, found[name] = line.partition("=")
    return found


@pytest.mark.parametrize("value", HOSTILE)
def test_an_output_is_read_back_as_it_was_and_alone(on_runner: Path, value: str) -> None:
    runner.set_outputs({"before": "1", "name": value, "after": "2"})
    runner.set_outputs({"later": "3"})
    found = read_back(on_runner / "output")
    expected = value.replace("\0", "\ufffd").encode("utf-8", "backslashreplace").decode()
    assert found == {"before": "1", "name": expected, "after": "2", "later": "3"}


def test_no_delimiter_comes_twice(on_runner: Path) -> None:
    runner.set_outputs({f"name{number}": "x" for number in range(50)})
    delimiters = re.findall(r"<<(.*)", (on_runner / "output").read_text())
    assert len(set(delimiters)) == 50
    assert all(len(delimiter) >= 32 for delimiter in delimiters)


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a\nb", "1a", "a<<b", "é"])
def test_a_name_that_no_workflow_could_ask_for_is_refused(on_runner: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a name has letters"):
        runner.set_outputs({"good": "x", name: "x"})
    assert not (on_runner / "output").exists()


@pytest.mark.parametrize("value", HOSTILE)
def test_away_from_a_runner_outputs_are_one_printed_line_each(capsys: pytest.CaptureFixture[str], value: str) -> None:
    runner.set_outputs({"name": value})
    out = capsys.readouterr().out
    assert out.startswith("name=")
    assert out.count("\n") == 1
    assert out.strip("\n").isprintable()
    assert "##[" not in out


def test_summaries_add_up(on_runner: Path) -> None:
    runner.add_summary("# One\n")
    runner.add_summary("# Two \ud800")
    assert (on_runner / "summary").read_text() == "# One\n\n# Two ?\n\n"


@pytest.mark.parametrize("line", ["x" * 99, "é" * 99, "\U0001f600" * 99])
def test_a_summary_stays_below_the_limit_and_says_what_is_missing(on_runner: Path, line: str) -> None:
    for _ in range(3):
        runner.add_summary(f"{line}\n" * 6000)
    written = (on_runner / "summary").read_bytes()
    assert len(written) < SUMMARY_BYTES
    assert b"cut off here" in written
    assert len(written) > 0.9 * SUMMARY_BYTES


def test_a_summary_away_from_a_runner_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    runner.add_summary("x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_an_annotation_is_one_order_to_the_runner(
    on_runner: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    runner.annotate("warning", text, path=f"a{text}", line=3, title=text)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("::warning file=a")
    properties, _, _ = error.removeprefix("::warning ").partition("::")
    assert re.fullmatch(r"file=[^,:\n]*,line=3(,title=[^,:\n]+)?", properties)
    assert "##[" not in error


def test_what_is_escaped_reads_as_it_was_meant(on_runner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner.annotate("notice", "50%: a,b", path="x,y:z%.py", line=1, title="a: b")
    assert capsys.readouterr().err == "::notice file=x%2Cy%3Az%25.py,line=1,title=a%3A b::x,y:z%25.py:1: 50%25: a,b\n"


def test_a_place_is_relative_to_the_repository(
    on_runner: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (on_runner / "llm").mkdir()
    monkeypatch.chdir(on_runner / "llm")
    for path in ("gates.yaml", str(on_runner / "llm/gates.yaml"), "../llm/gates.yaml"):
        runner.annotate("error", "x", path=path, line=2)
    assert capsys.readouterr().err.count("::error file=llm/gates.yaml,line=2::") == 3


def test_elsewhere_an_annotation_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    runner.annotate("warning", "a\n::error::b", path="gates.yaml", line=3)
    runner.annotate("error", "gates.yaml:3: already placed", path="gates.yaml", line=3)
    runner.annotate("notice", "no place")
    assert capsys.readouterr().err.splitlines() == [
        "warning: gates.yaml:3: a\\n::error::b", "error: gates.yaml:3: already placed", "notice: no place",
    ]  # fmt: skip


def test_a_secret_is_masked_line_by_line(on_runner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner.mask("one%0A\n\n two \n")
    assert capsys.readouterr().out == "::add-mask::one%250A\n::add-mask::two\n"


def test_a_secret_is_not_printed_away_from_a_runner(capsys: pytest.CaptureFixture[str]) -> None:
    runner.mask("secret")
    assert capsys.readouterr() == ("", "")
