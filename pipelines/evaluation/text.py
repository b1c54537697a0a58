"""How close an answer is to the gold text: words in common, in order, and in n-grams."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """Return text in NFKC, lower case, with single spaces: the form in which two texts count as the same."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def squad_words(text: str) -> list[str]:
    """Return lower-case words without punctuation and English articles (Rajpurkar et al. 2016, evaluate-v2.0.py)."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def token_f1(outputs: Sequence[str], golds: Sequence[str]) -> list[float]:
    """Return F1 over the words of answer and gold, counted with their multiplicity.

    Source: the SQuAD 2.0 evaluation script; where one side has no words, 1 if the other has none either, else 0.

    Args:
        outputs: Answers, shape (n,).
        golds: Gold answers, shape (n,).

    Returns:
        Scores from 0 to 1, shape (n,).
    """
    return [_overlap_f1(squad_words(output), squad_words(gold)) for output, gold in zip(outputs, golds, strict=True)]


def _overlap_f1(output: list[str], gold: list[str]) -> float:
    if not output or not gold:
        return float(output == gold)
    common = sum((Counter(output) & Counter(gold)).values())
    return 2 * common / (len(output) + len(gold))


def rouge_l(outputs: Sequence[str], golds: Sequence[str]) -> list[float]:
    """Return ROUGE-L: F1 of the longest common subsequence of words.

    With m gold words, n answer words and a longest common subsequence of length l: R = l/m, P = l/n,
    F = 2PR/(P+R) = 2l/(m+n). Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries",
    section 3.1, beta = 1; words as in Google's rouge-score (lower case, no stemming), letters of any script.

    Args:
        outputs: Answers, shape (n,).
        golds: Gold answers, shape (n,).

    Returns:
        Scores from 0 to 1, shape (n,).
    """
    from rapidfuzz.distance import LCSseq

    scores = []
    for output, gold in zip(outputs, golds, strict=True):
        left, right = WORD.findall(output.lower()), WORD.findall(gold.lower())
        total = len(left) + len(right)
        # No words on either side: the same empty answer.
        scores.append(2 * LCSseq.similarity(left, right) / total if total else 1.0)
    return scores


def bleu(outputs: Sequence[str], golds: Sequence[str]) -> list[float]:
    """Return sentence BLEU-4, exponential smoothing, effective order (Post 2018, sacrebleu).

    Args:
        outputs: Answers, shape (n,).
        golds: Gold answers, shape (n,).

    Returns:
        Scores from 0 to 1, shape (n,).
    """
    from sacrebleu.metrics.bleu import BLEU

    return _sacrebleu(BLEU(effective_order=True), outputs, golds)


def chrf(outputs: Sequence[str], golds: Sequence[str]) -> list[float]:
    """Return chrF2: character 1- to 6-gram F-score, recall weighted twice (Popovic 2015, sacrebleu).

    Args:
        outputs: Answers, shape (n,).
        golds: Gold answers, shape (n,).

    Returns:
        Scores from 0 to 1, shape (n,).
    """
    from sacrebleu.metrics.chrf import CHRF

    return _sacrebleu(CHRF(), outputs, golds)


def _sacrebleu(metric: object, outputs: Sequence[str], golds: Sequence[str]) -> list[float]:
    score = metric.sentence_score  # type: ignore[attr-defined]
    # sacrebleu's 100 is sometimes 100.00000000000004.
    return [min(1.0, score(output, [gold]).score / 100) for output, gold in zip(outputs, golds, strict=True)]
