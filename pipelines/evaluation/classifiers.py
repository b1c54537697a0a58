"""Toxicity, bias and entailment by sequence classifiers: pinned, hash-checked, safetensors only, no code of theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.core.command import annotate
from pipelines.core.declared import nearest
from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import digest, read_json, sha256
from pipelines.core.params import Classifier
from pipelines.evaluation.embeddings import by_chunk
from pipelines.llm.answers import AnswerCache

MAX_TOKENS = 512
# What a classifier needs beside its weights; anything else in a repository (pickles, code) is never fetched.
CONFIG = "config.json"
TEXT_FILES = ("*.json", "*.txt", "*.model")


def classify(
    classifier: Classifier, inputs: Sequence[str], outputs: Sequence[str], cache: AnswerCache | None = None
) -> list[float]:
    """Return the probability of the declared label for each answer.

    Args:
        classifier: Which model, which label, and whether it reads (input, output) as a pair.
        inputs: What was asked, shape (n,); read only for pairs.
        outputs: Answers, shape (n,).
        cache: Where finished chunks are kept, or None.

    Returns:
        Probabilities, shape (n,): softmax over labels, or a sigmoid for multi-label and one-label models. Of a text
        longer than the model reads only the beginning counts; a warning says of how many.

    Raises:
        ConfigError: A file's hash differs, weights are no safetensors, or the label is unknown.
        ServiceError: The hub cannot be reached.
    """
    texts = [given if classifier.pair else "" for given in inputs]
    loaded: list[Callable[[Sequence[tuple[str, str]]], list[float]]] = []

    def compute(chunk: Sequence[tuple[str, str]]) -> list[float]:
        if not loaded:  # where every chunk is cached, nothing is fetched or loaded
            loaded.append(load(classifier))
        return loaded[0](chunk)

    identity = digest({"classifier": classifier.model_dump(mode="json"), "max_tokens": MAX_TOKENS})
    return by_chunk(list(zip(texts, outputs, strict=True)), compute, identity=identity, cache=cache)


def load(classifier: Classifier) -> Callable[[Sequence[tuple[str, str]]], list[float]]:
    """Fetch, verify and load a classifier.

    Returns:
        A function from (input, output) pairs to probabilities of the label.

    Raises:
        ConfigError: A file's hash differs, weights are no safetensors, or the label is unknown.
        ServiceError: The hub cannot be reached.
    """
    folder = fetch(classifier)
    verify(folder, classifier)
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        ).eval()
    except (ValueError, OSError, KeyError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigError(f"classifier {classifier.id}: transformers cannot load it ({cause})") from None
    labels = [str(name) for name in model.config.label2id]
    if classifier.label not in labels:
        raise ConfigError(
            f"classifier {classifier.id}: label: unknown label '{classifier.label}'{nearest(classifier.label, labels)}"
        )
    position = model.config.label2id[classifier.label]
    is_independent = model.config.num_labels == 1 or model.config.problem_type == "multi_label_classification"

    @torch.inference_mode()
    def probabilities(pairs: Sequence[tuple[str, str]]) -> list[float]:
        first = [given if classifier.pair else output for given, output in pairs]
        second = [output for _, output in pairs] if classifier.pair else None
        most = _max_tokens(tokenizer)
        batch = tokenizer(first, second, padding=True, truncation=True, max_length=most, return_tensors="pt")
        n_cut = _count_longer(tokenizer, first, second, most)
        if n_cut:
            annotate(
                "warning", f"classifier {classifier.id}: {n_cut} of {len(pairs)} texts are longer than {most} tokens; "
                "it reads their beginning only",
            )  # fmt: skip
        logits = model(**batch).logits  # (n_pairs, n_labels)
        shares = logits.sigmoid() if is_independent else logits.softmax(dim=1)
        found = [float(share) for share in shares[:, position]]
        if not all(map(math.isfinite, found)):
            raise ConfigError(
                f"classifier {classifier.id}: its weights compute no number for '{classifier.label}'; "
                "choose another model"
            )
        return found

    return probabilities


def _count_longer(tokenizer: Any, first: Sequence[str], second: Sequence[str] | None, most: int) -> int:
    return sum(len(ids) > most for ids in tokenizer(first, second, truncation=False, verbose=False)["input_ids"])


def _max_tokens(tokenizer: Any) -> int:
    # A tokenizer that does not know its limit says 10^30.
    return min(MAX_TOKENS, int(tokenizer.model_max_length))


def fetch(classifier: Classifier) -> Path:
    """Return the folder of a classifier's files, from disk or from the hub at its pinned commit.

    Raises:
        ConfigError: Neither a folder nor a pinned hub id.
        ServiceError: The hub cannot be reached, or has no such commit.
    """
    if classifier.revision is None:
        folder = Path(classifier.id)
        if not folder.is_dir():
            raise ConfigError(
                f"classifier {classifier.id}: no such folder; for a hub id give `revision` (a commit of its repository)"
            )
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = [*TEXT_FILES, *classifier.sha256]
    try:
        return Path(snapshot_download(classifier.id, revision=classifier.revision, allow_patterns=patterns))
    except (HfHubHTTPError, OSError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ServiceError(f"classifier {classifier.id}: cannot be fetched from the hub ({cause})") from None


def verify(folder: Path, classifier: Classifier) -> None:
    """Check that a classifier's files are the declared ones, and no other weights could be loaded in their place.

    Raises:
        ConfigError: A declared file is missing or differs; one that is no JSON is no safetensors by its structure; the
            folder has undeclared safetensors, which transformers might prefer; or the configuration, which says which
            number is which label, is neither declared nor pinned by a commit.
    """
    name = f"classifier {classifier.id}"
    for file, expected in classifier.sha256.items():
        path = folder / file
        if not path.is_file():
            raise ConfigError(f"{name}: sha256: no file '{file}' in {folder}")
        if (found := sha256(path)) != expected:
            raise ConfigError(f"{name}: {file}: SHA-256 is {found}, declared is {expected}; fetch it again")
        if path.suffix != ".json" and not is_safetensors(path):
            raise ConfigError(f"{name}: {file}: not safetensors; other formats can run code when loaded")
    for path in folder.glob("*.safetensors"):
        if path.name not in classifier.sha256:
            raise ConfigError(f"{name}: {path.name}: its SHA-256 is not declared; add it under sha256")
    if not any(file.endswith(".safetensors") for file in classifier.sha256):
        raise ConfigError(f"{name}: sha256: declares no weights (*.safetensors)")
    if classifier.revision is None and CONFIG not in classifier.sha256:
        found = sha256(folder / CONFIG) if (folder / CONFIG).is_file() else "missing"
        raise ConfigError(
            f"{name}: sha256: a folder's {CONFIG} says which label is which; declare it as well ({CONFIG}: {found})"
        )
    if any("auto_map" in read_json(path) for path in folder.glob("*config.json")):
        raise ConfigError(f"{name}: asks for code of its own (auto_map), which is never run; choose another model")


def is_safetensors(path: Path) -> bool:
    """Tell by structure whether a file is safetensors: a length, then a JSON header that covers the rest."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False
