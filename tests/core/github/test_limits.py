"""Markdown cut to fit: within the limit, at the end of a line, and nothing left open."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipelines.core.github.limits import fit, utf8

LAST = "**cut here**"
PIECES = st.sampled_from([
    "word", "```", "~~~", "````text", "``` `x", "   ```", "    ```", "<details>", "</details>", "<table>", "</table>",
    "| a | b |", "- x", "# y", "é" * 40, "", "x" * 300, "<details><summary>s</summary>", "```mermaid",
])  # fmt: skip


@example(["- x", "   ```", "x" * 300, "```", "x" * 300, "x" * 300], 600)
@given(st.lists(PIECES, max_size=80), st.integers(600, 2500))
def test_whatever_is_cut_fits_and_ends_with_the_last_line_in_sight(pieces: list[str], most: int) -> None:
    text = "\n".join(pieces)
    found = fit(text, most, LAST)
    assert len(found) <= most
    if len(text) <= most:
        assert found == text
    else:
        assert found.endswith(f"\n\n{LAST}\n")
        assert MarkdownIt().render(found).rstrip().endswith("<strong>cut here</strong></p>")


@pytest.mark.parametrize("size", [len, utf8])
def test_the_limit_is_counted_as_asked(size: object) -> None:
    text = "é" * 50 + "\n"
    count = len if size is len else utf8
    assert fit(text * 20, count(text * 20), LAST, size=count) == text * 20
    assert count(fit(text * 20, count(text * 20) - 1, LAST, size=count)) < count(text * 20)


def test_folded_parts_are_closed_in_their_order() -> None:
    found = fit("<details>\n<table>\n</table>\n<details>\n" + "row\n" * 500, 1500, LAST)
    assert found.endswith("row\n\n</details>\n</details>\n\n**cut here**\n")


def test_a_block_that_does_not_fit_is_left_out_whole() -> None:
    assert fit("before\n\n```mermaid\n" + "a-->b\n" * 500, 1500, LAST) == "before\n\n\n**cut here**\n"
