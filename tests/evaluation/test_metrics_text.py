"""Text metrics against figures that can be checked by hand, or that their authors published."""

import math
import random
import time

import pytest

from pipelines.evaluation.text import bleu, chrf, normalise, rouge_l, token_f1


def test_words_count_with_their_multiplicity_and_without_articles_or_punctuation():
    # {cat, sat} of {cat, sat, down}: P = 2/2, R = 2/3, F1 = 2*2/(2+3)
    assert token_f1(["The cat sat!"], ["a cat sat down"]) == [pytest.approx(0.8)]
    # "no no" has one "no" in common with "no way": 2*1/(2+2)
    assert token_f1(["no no"], ["no way"]) == [pytest.approx(0.5)]


def test_an_empty_answer_scores_zero_unless_the_gold_is_empty_too():
    assert token_f1(["", "...", ""], ["yes", "yes", ""]) == [0.0, 0.0, 1.0]
    assert rouge_l(["", ""], ["yes", ""]) == [0.0, 1.0]
    assert bleu([""], ["yes"]) == [0.0]
    assert chrf([""], ["yes"]) == [0.0]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("police kill the gunman", 0.75), ("the gunman kill police", 0.5), ("the gunman police killed", 0.5)],
)
def test_rouge_l_gives_the_figures_of_lins_paper(answer, expected):
    # Lin 2004, section 3.1: S1 "police killed the gunman"; S2 3/4, S3 2/4, S4 2/4
    assert rouge_l([answer], ["police killed the gunman"]) == [pytest.approx(expected)]


def test_rouge_l_weighs_precision_and_recall_alike():
    # the longest common subsequence of "a b c d e" and "a x c" is "a c": P = 2/5, R = 2/3, F = 2*2/(5+3)
    assert rouge_l(["a b c d e"], ["a x c"]) == [pytest.approx(0.5)]


def test_rouge_l_reads_words_of_any_script():
    assert rouge_l(["Привет, мир"], ["привет мир"]) == [1.0]


def test_bleu_of_a_short_but_exact_answer_is_its_brevity_penalty():
    # all n-gram precisions are 1; 5 words for 6: exp(1 - 6/5)
    assert bleu(["the cat sat on the"], ["the cat sat on the mat"]) == [pytest.approx(math.exp(1 - 6 / 5))]


def test_bleu_never_exceeds_one():
    text = "one two three four five six seven"
    assert bleu([text], [text]) == [1.0]


def test_chrf_matches_a_hand_calculation():
    # 1-grams P = 2/2, R = 2/3; 2-grams P = 1/1, R = 1/2; means P = 1, R = 7/12; F2 = 5PR / (4P + R)
    recall = (2 / 3 + 1 / 2) / 2
    assert chrf(["ab"], ["abc"]) == [pytest.approx(5 * recall / (4 + recall))]


def test_normalising_ignores_case_width_and_white_space_only():
    assert normalise("  \uff28ello\n\tWORLD ") == "hello world"
    assert normalise("don't") != normalise("dont")


def test_outputs_and_golds_of_different_length_are_refused():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        token_f1(["a"], ["a", "b"])


def test_ten_thousand_rows_take_seconds():
    draw = random.Random(0)
    words = ["doorbell", "stopped", "ringing", "after", "the", "last", "update", "please", "send", "order", "number"]
    texts = [" ".join(draw.choices(words, k=25)) for _ in range(10_000)]
    started = time.process_time()
    for metric in (token_f1, rouge_l, bleu, chrf):
        assert len(metric(texts, texts[::-1])) == 10_000
    assert time.process_time() - started < 30
