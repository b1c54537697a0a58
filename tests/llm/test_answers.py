"""The answer cache: what is stored comes back, what is broken is a miss."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.llm.answers import Answer, AnswerCache, Request, cache_key
from pipelines.llm.prompts import Message

REQUEST = Request("row", (Message("user", "Where is my parcel?"),), max_tokens=8)
ANSWER = Answer("On its way.", "scored", "", "stop", 12, 4, latency_ms=5.0, ttft_ms=1.0)


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "answers")


def only_file(cache: AnswerCache) -> Path:
    [path] = (path for path in cache.folder.rglob("*") if path.is_file())
    return path


def test_what_was_stored_comes_back_in_another_process_s_cache(cache: AnswerCache):
    cache.put("ab12", {"text": "naïve 🚪", "count": 3})
    assert AnswerCache(cache.folder).get("ab12") == {"text": "naïve 🚪", "count": 3}


def test_half_an_emoji_survives(cache: AnswerCache):
    cache.put("ab12", {"text": "\ud83d"})
    assert cache.get("ab12") == {"text": "\ud83d"}


def test_an_unknown_key_is_a_miss(cache: AnswerCache):
    assert cache.get("ab12") is None


def test_a_file_cut_off_at_any_byte_is_a_miss(cache: AnswerCache):
    cache.put("ab12", {"text": "hello"})
    whole = only_file(cache).read_bytes()
    for length in range(len(whole)):
        only_file(cache).write_bytes(whole[:length])
        assert cache.get("ab12") is None


@pytest.mark.parametrize(
    "change",
    [
        (b"hello", b"hullo"),
        (b"ab12", b"ab13"),
        (b'"value":{"text":"hello"}', b'"value":["hello"]'),
    ],
)
def test_a_changed_file_is_a_miss(cache: AnswerCache, change: tuple[bytes, bytes]):
    cache.put("ab12", {"text": "hello"})
    path = only_file(cache)
    changed = path.read_bytes().replace(*change)
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    assert cache.get("ab12") is None


def test_a_later_value_replaces_the_first(cache: AnswerCache):
    cache.put("ab12", {"text": "first"})
    cache.put("ab12", {"text": "second"})
    assert cache.get("ab12") == {"text": "second"}


def test_a_value_that_is_no_json_leaves_no_file(cache: AnswerCache):
    with pytest.raises(ValueError, match="JSON"):
        cache.put("ab12", {"score": float("nan")})
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []


def test_a_cached_answer_is_marked_and_has_no_times(cache: AnswerCache):
    cache.put_answer("ab12", ANSWER)
    assert cache.get_answer("ab12") == ANSWER._replace(latency_ms=None, ttft_ms=None, is_cached=True)


@pytest.mark.parametrize("state", ["model_error", "infra_error"])
def test_an_error_is_not_cached(cache: AnswerCache, state: str):
    cache.put_answer("ab12", ANSWER._replace(state=state))
    assert cache.get_answer("ab12") is None


def test_an_object_that_is_no_answer_is_a_miss(cache: AnswerCache):
    cache.put("ab12", {"nats_per_token": 1.5})
    assert cache.get_answer("ab12") is None


@pytest.mark.parametrize(
    "other",
    [
        REQUEST._replace(messages=(Message("system", "Where is my parcel?"),)),
        REQUEST._replace(messages=(Message("user", "Where is my parcel"), Message("user", "?"))),
        REQUEST._replace(max_tokens=9),
        REQUEST._replace(temperature=0.5),
        REQUEST._replace(top_p=0.9),
        REQUEST._replace(repeat=1),
        REQUEST._replace(wants_json=True),
    ],
)
def test_whatever_can_change_an_answer_changes_its_key(other: Request):
    assert cache_key("model", other) != cache_key("model", REQUEST)


def test_another_model_changes_the_key_and_the_row_does_not():
    assert cache_key("other", REQUEST) != cache_key("model", REQUEST)
    assert cache_key("model", REQUEST._replace(id="another row")) == cache_key("model", REQUEST)
