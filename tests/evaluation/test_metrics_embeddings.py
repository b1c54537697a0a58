"""Semantic similarity with the real packaged model, and the chunks that make a killed run repeat itself exactly."""

import math

import pytest

from pipelines.core.errors import ConfigError
from pipelines.evaluation.embeddings import CHUNK, by_chunk, cosine, semantic_similarity
from pipelines.llm.answers import AnswerCache


def test_similarities_are_those_that_the_models_authors_show():
    # https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, example of the inference widget
    others = ["That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    found = semantic_similarity(["That is a happy person"] * 3, others)
    assert found == pytest.approx([0.695, 0.943, 0.257], abs=0.002)


def test_the_same_text_has_similarity_one_and_nothing_has_none():
    assert semantic_similarity(["a hub", " a hub ", "", "a hub"], ["a hub", "a hub", "", " \n"]) == pytest.approx(
        [1.0, 1.0, 1.0, 0.0]
    )


def test_padding_by_a_longer_neighbour_changes_nothing_that_matters():
    pair = ("My parcel is late.", "Where is my order?")
    alone = semantic_similarity([pair[0]], [pair[1]])[0]
    beside = semantic_similarity([pair[0], "word " * 200], [pair[1], "text"])[0]
    assert alone == pytest.approx(beside, abs=1e-5)


def test_a_second_run_computes_nothing_and_a_broken_chunk_again(tmp_path):
    cache, calls = AnswerCache(tmp_path), []

    def lengths(chunk):
        calls.append(len(chunk))
        return [float(len(left) + len(right)) for left, right in chunk]

    pairs = [("x" * (at % 50), "y" * (at // 50)) for at in range(2 * CHUNK)] * 3
    expected = [float(len(left) + len(right)) for left, right in pairs]
    assert by_chunk(pairs, lengths, identity="test", cache=cache) == expected
    assert by_chunk(pairs, lengths, identity="test", cache=cache) == expected
    assert calls == [CHUNK, CHUNK]
    next(tmp_path.rglob("*.json")).write_text("{")
    assert by_chunk(pairs, lengths, identity="test", cache=cache) == expected
    assert calls == [CHUNK] * 3
    by_chunk(pairs, lengths, identity="another", cache=cache)
    assert calls == [CHUNK] * 5


@pytest.mark.parametrize("product", [math.nan, math.inf, -math.inf])
def test_a_product_that_is_no_number_is_one_line_and_never_a_perfect_score(product):
    with pytest.raises(ConfigError, match=r"computed -?(nan|inf) instead of a cosine"):
        cosine(product)
    assert (cosine(1 + 1e-7), cosine(-1 - 1e-7), cosine(0.5)) == (1.0, -1.0, 0.5)


def test_the_order_of_rows_does_not_change_the_batches(tmp_path):
    cache, calls = AnswerCache(tmp_path), []

    def count(chunk):
        calls.append(tuple(chunk))
        return [1.0] * len(chunk)

    pairs = [(str(at), "gold") for at in range(100)]
    by_chunk(pairs, count, identity="test", cache=None)
    by_chunk(pairs[::-1], count, identity="test", cache=cache)
    assert calls[:2] == calls[2:]
