"""Questions that mean the same: what may share an answer, what must not, and the process that embeds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.serving.config import Serving
from pipelines.serving.config_policies import SemanticCache
from pipelines.serving.embedder import Embedder
from pipelines.serving.likeness import features, may_share
from pipelines.serving.minilm import MiniLM, TooLong
from pipelines.serving.nearest import BRUTE_FORCE, Nearest
from pipelines.serving.parts import Answer, Question
from pipelines.serving.semantic import Semantic, split
from tests.serving.gateway import declared, upstream
from tests.serving.inside import ask, make
from tests.serving.rules import caches
from tests.serving.test_references import SHIPPED
from tests.serving.test_references import said as check_says
from tests.serving.upstreams import Upstreams

Array = NDArray[np.float32]
ANSWER = Answer({}, b"{}", "small", "one", 1, 1)
PAIRS = [{"one": "Cancel my order", "other": "Do not cancel my order"}]
PARAGRAPH = "The customer wrote that the thermostat keeps losing its connection to the hub every evening."
BODY: dict[str, Any] = {"model": "desk", "temperature": 0}


def user(text: str, *before: dict[str, str]) -> dict[str, Any]:
    return BODY | {"messages": [*before, {"role": "user", "content": text}]}


def settings(**more: Any) -> SemanticCache:
    return SemanticCache.model_validate({"must_differ": PAIRS, **more})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cancel order 17", "Cancel order 18"),
        ("I can pay by card", "I cannot pay by card"),
        ("I can pay by card", "I can't pay by card"),
        ("Fly from Rome to Paris", "Fly from Paris to Rome"),
        ("Turn the lamp on", "Turn the lamp off"),
        ("Is it open on Monday?", "Is it open on Tuesday?"),
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("mail a@b.com", "mail a@c.com"),
        ("Pay 5 to 7", "Pay 7 to 5"),
        ("How do I install it?", "How do I uninstall it?"),
        ("It costs 20 $", "It costs 20 €"),
        ("two tickets", "three tickets"),
        ("Ich will kündigen", "Ich will nicht kündigen"),
        ("Answer in English. " + PARAGRAPH, "Answer in Spanish. " + PARAGRAPH),
        ("Translate to French: " + PARAGRAPH, "Translate to German: " + PARAGRAPH),
        ("Write a mail to Alice: " + PARAGRAPH, "Write a mail to Bob: " + PARAGRAPH),
        ("Summarize: " + PARAGRAPH, "Translate into Spanish: " + PARAGRAPH),
        ("Does Alice owe Bob?", "Does Bob owe Alice?"),
    ],
)
def test_words_that_turn_a_meaning_round_keep_two_questions_apart(one: str, other: str) -> None:
    assert not may_share(features(one), features(other))
    assert not may_share(features(other), features(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How can I reset my password?", "How do I reset my password"),
        ("Where is order 17?", "where is my order 17"),
        ("I can\u2019t log in", "i can't log in!"),
        ("Please help", "Help please, thanks"),
    ],
)
def test_other_words_for_the_same_may_share(one: str, other: str) -> None:
    assert may_share(features(one), features(other))


def vectors(n: int, seed: int = 1) -> Array:
    found = np.random.default_rng(seed).standard_normal((n, 384)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def test_the_nearest_of_few_are_found_exactly_and_the_removed_are_not() -> None:
    rows, index = vectors(500), Nearest()
    slots = [index.add(row) for row in rows]
    near = rows[7] + 0.02 * rows[8]
    near /= np.linalg.norm(near)
    assert index.find(near, 0.95) == [(slots[7], pytest.approx(float(rows[7] @ near)))]
    index.remove(slots[7])
    assert index.find(near, 0.95) == []
    assert len(index) == 499
    assert index.add(rows[7]) == slots[7]  # its place is used again
    assert index.find(near, 0.95)[0][0] == slots[7]


def test_the_nearest_of_many_are_found_nearly_always_and_never_wrongly() -> None:
    topics = vectors(40, seed=2)
    rng = np.random.default_rng(3)
    rows = topics[rng.integers(0, 40, BRUTE_FORCE + 2000)] + 0.9 * vectors(BRUTE_FORCE + 2000, seed=4)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = Nearest()
    for row in rows:
        index.add(row)
    asked = rng.integers(0, len(rows), 200)
    n_found = 0
    for place in asked:
        near = rows[place] + 0.2 * vectors(1, seed=int(place))[0]
        near /= np.linalg.norm(near)
        found = index.find(near, 0.95)
        assert all(similarity >= 0.95 for _, similarity in found)
        n_found += place in [slot for slot, _ in found]
    assert n_found >= 190


class Table:
    """Embeds by a table; what is not in it cannot be embedded in time."""

    def __init__(self, known: dict[str, Array]) -> None:
        self.known = known

    def start(self) -> None:
        pass

    async def embed(self, text: str) -> Array | None:
        return self.known.get(text)

    async def close(self) -> None:
        pass


def asked(text: str, scope: str = "first", identity: str = "1", **more: Any) -> Question:
    return Question(repr((text, scope, identity, more)).encode(), "desk", scope, identity, "chat", user(text) | more)


def test_everything_but_the_last_words_must_be_equal() -> None:
    one = vectors(1)[0]

    async def scenario() -> None:
        cache = Semantic(settings(), Table({"hello": one, "hi": one}))
        await cache.put(asked("hello"), ANSWER)
        assert await cache.get(asked("hi")) is ANSWER
        assert await cache.get(asked("hi", stream=True, user="anna")) is ANSWER
        for other in (
            asked("hi", scope="second"),
            asked("hi", identity="2"),
            asked("hi", max_tokens=5),
            asked("hi")._replace(body=user("hi", {"role": "system", "content": "be short"})),
            asked("hi")._replace(endpoint="completions", body={"prompt": "hi"}),
        ):
            assert await cache.get(other) is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [{"role": "user", "content": "hi", "name": "anna"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": ["hi"]},
        {"prompt": [1, 2]},
    ],
)
def test_what_cannot_be_compared_by_its_words_is_not(body: dict[str, Any]) -> None:
    assert split(asked("hi")._replace(body=body)) is None


def test_entries_end_with_their_time_and_the_oldest_go_first() -> None:
    now = 0.0
    rows = {str(number): row for number, row in enumerate(vectors(6))}

    async def scenario() -> None:
        nonlocal now
        cache = Semantic(settings(ttl_s=10, max_entries=3), Table(rows), clock=lambda: now)
        for text in "01234":
            await cache.put(asked(text), ANSWER)
        assert [await cache.get(asked(text)) is ANSWER for text in "01234"] == [False, False, True, True, True]
        now = 10.0
        assert [await cache.get(asked(text)) for text in "234"] == [None] * 3
        assert (len(cache), cache.n_bytes) == (0, 0)
        assert await cache.get(asked("unknown")) is None

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM()


def test_embeddings_are_those_of_the_evaluation(model: MiniLM) -> None:
    from pipelines.evaluation.embeddings import _load

    embed = _load()
    texts = ["hello", "How do I reset my password?", "Straße, naïve, 日本語 and 12.5 %", "word " * 180]
    for text in texts:
        assert np.abs(model.embed(text) - embed([text])[0].numpy()).max() < 1e-5


def test_a_text_that_the_model_would_not_read_whole_is_none(model: MiniLM) -> None:
    model.embed("word " * 250)
    with pytest.raises(TooLong):
        model.embed("word " * 260)


def test_a_gateway_answers_by_meaning_and_goes_on_when_the_embedding_process_is_killed(
    upstreams: Upstreams, tmp_path: Path
) -> None:
    async def scenario() -> None:
        route = {"tiers": [{"upstream": "one"}], "cache": {"semantic": True}}
        declared_caches = {"exact": {}, "semantic": {"min_similarity": 0.8, "timeout_s": 30, "must_differ": PAIRS}}
        file = declared({"one": upstream(upstreams.url)}, {"desk": route}, caches=declared_caches)
        embedder = Embedder(30)
        kept = caches(Serving.model_validate(file), semantic=Semantic(settings(min_similarity=0.8), embedder))
        kept.start()
        gateway, ledger = make(tmp_path, file, caches=kept)

        async def level(text: str) -> str:
            return (await ask(gateway, user(text)))[1]["x-gatehouse-cache"]

        async def start() -> None:
            while await embedder.embed("are you there") is None:
                await asyncio.sleep(0.05)

        await asyncio.wait_for(start(), 60)
        upstreams.script({"text": "click the link"})
        assert await level("How can I reset my password?") == "miss"
        while not len(kept.semantic or ""):
            await asyncio.sleep(0.01)
        assert await level("How do I reset my password") == "semantic"
        assert await level("How can I not reset my password?") == "miss"
        assert await level("How can I reset my password?") == "exact"
        assert [row.usd > 0 for row in ledger.rows] == [True, False, True, False]
        assert embedder.pid is not None
        os.kill(embedder.pid, signal.SIGKILL)
        assert await level("How do I reset a password") in ("miss", "semantic")
        await asyncio.wait_for(start(), 60)
        assert await level("How do I reset my password, please") == "semantic"
        pid = embedder.pid
        await kept.close()
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(scenario())


def test_an_embedding_process_that_is_too_slow_costs_its_time_limit_and_no_more() -> None:
    async def scenario() -> None:
        embedder = Embedder(0.05)
        assert await embedder.embed("not started") is None
        embedder.start()
        while embedder.pid is None:
            await asyncio.sleep(0.01)
        os.kill(embedder.pid, signal.SIGSTOP)
        assert await asyncio.gather(*(embedder.embed("hello") for _ in range(100))) == [None] * 100
        os.kill(embedder.pid, signal.SIGCONT)
        embedder.timeout_s = 30
        while (vector := await embedder.embed("hello")) is None:
            await asyncio.sleep(0.05)
        assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-5)
        await embedder.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.parametrize(
    ("one", "other", "min_similarity", "is_refused"),
    [
        ("How do I reset my password?", "How do I reset my passwords?", 0.8, True),
        ("How do I reset my password?", "How do I reset my passwords?", 0.99, False),
        ("Cancel order 17", "Cancel order 18", 0.5, False),
        ("Where is my parcel?", "Which cable do I need?", 0.8, False),
    ],
)
def test_check_holds_declared_pairs_against_the_cache(
    tmp_path: Path, one: str, other: str, min_similarity: float, is_refused: bool
) -> None:
    pair = json.dumps([{"one": one, "other": other}])
    semantic = f"\n  semantic: {{min_similarity: {min_similarity}, must_differ: {pair}}}\n"
    exact = "  exact: {ttl_s: 3600, max_entries: 10000}\n"
    assert exact in SHIPPED
    found = check_says(tmp_path, SHIPPED.replace(exact, exact.rstrip() + semantic))
    assert bool(found) == is_refused, found
    if is_refused:
        assert found[0].startswith("serving.yaml:")
        assert "caches.semantic.must_differ[0]: these two would share an answer" in found[0]
