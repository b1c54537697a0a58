import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation.reporting.difference import Piece, differences, to_html


def test_one_changed_word_is_one_removed_and_one_added_piece() -> None:
    assert differences('{"intent": "setup"}', '{"intent": "fault"}') == (
        Piece("same", '{"intent": "'),
        Piece("removed", "setup"),
        Piece("added", "fault"),
        Piece("same", '"}'),
    )


def test_neighbouring_changed_words_read_as_one_phrase() -> None:
    pieces = differences("send it back today", "keep this one today")
    assert pieces == (Piece("removed", "send it back"), Piece("added", "keep this one"), Piece("same", " today"))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", ()),
        ("", "new", (Piece("added", "new"),)),
        ("old", "", (Piece("removed", "old"),)),
        ("same", "same", (Piece("same", "same"),)),
    ],
)
def test_empty_and_equal_texts_have_the_pieces_one_expects(
    before: str, after: str, expected: tuple[Piece, ...]
) -> None:
    assert differences(before, after) == expected


@given(st.text(alphabet="ab <>&\n.", max_size=60), st.text(alphabet="ab <>&\n.", max_size=60))
def test_the_pieces_of_each_side_join_to_its_text(before: str, after: str) -> None:
    pieces = differences(before, after)
    assert "".join(text for kind, text in pieces if kind != "added") == before
    assert "".join(text for kind, text in pieces if kind != "removed") == after


def test_html_marks_the_change_and_escapes_every_piece() -> None:
    pieces = differences("say <b>hi</b>", "say <script>hi</script>")
    html = to_html(pieces)
    assert "<script>" not in html
    assert "<del>b</del><ins>script</ins>" in html


def test_each_side_shows_only_its_own_words() -> None:
    pieces = differences("red door", "blue door")
    assert to_html(pieces, side="before") == "<del>red</del> door"
    assert to_html(pieces, side="after") == "<ins>blue</ins> door"


def test_two_long_texts_without_a_common_word_take_no_time() -> None:
    started = time.process_time()
    pieces = differences(" ".join(f"a{n}" for n in range(20_000)), " ".join(f"b{n}" for n in range(20_000)))
    assert time.process_time() - started < 20
    assert [piece.kind for piece in pieces] == ["removed", "added"]


def test_texts_that_repeat_few_words_without_end_take_no_time_and_lose_nothing() -> None:
    before, after = (" ".join(f"0.{n * step}" for n in range(240)) for step in (7919, 7927))
    started = time.process_time()
    pieces = differences(before, after)
    assert time.process_time() - started < 20
    assert "".join(text for kind, text in pieces if kind != "added") == before
    assert "".join(text for kind, text in pieces if kind != "removed") == after
