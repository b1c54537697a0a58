"""The model of `params.yaml`: data sets, models, training, suites. The only home of hyperparameters."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from pipelines.core.declared import Declared, load


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or not path.strip():
        raise ValueError("a path inside the repository is needed")
    return path


HASH = "[0-9a-f]{64}"
NAME = "[a-z][a-z0-9_-]{0,62}"


def _is_hash(value: str) -> str:
    if not re.fullmatch(HASH, value):
        raise ValueError("a SHA-256 of 64 lower-case hex digits is needed")
    return value


def _is_name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        raise ValueError("a name of lower-case letters, digits, '-' and '_' that starts with a letter is needed")
    return value


Name = Annotated[str, AfterValidator(_is_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"})]
InsidePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, AfterValidator(_is_hash), WithJsonSchema({"type": "string", "pattern": f"^{HASH}$"})]
Share = Annotated[float, Field(ge=0, le=1)]
Usd = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


# --- data -----------------------------------------------------------------------------------------------------


class Splits(Declared):
    """Share of rows per split, by content hash."""

    train: Share = 0.0
    validation: Share = 0.0
    test: Share = 0.0

    @model_validator(mode="after")
    def _sum_to_one(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares must sum to 1, they sum to {total:g}")
        return self


class SplitOverride(Declared):
    """Other shares for the rows whose `column` has the value `equals`, or any value if `equals` is absent."""

    column: str
    equals: str | int | None = None
    splits: Splits


class SplitColumn(Declared):
    """Splits that the data already carries: which values of `column` belong where."""

    column: str
    train: tuple[str | int, ...] = ()
    validation: tuple[str | int, ...] = ()
    test: tuple[str | int, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> SplitColumn:
        values = [*self.train, *self.validation, *self.test]
        if not values:
            raise ValueError("one of 'train', 'validation' or 'test' must list values of the column")
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"value {twice[0]!r} is listed twice; a row can be in one split only")
        return self


def _way_of_splitting(value: Any) -> str:
    is_column = isinstance(value, SplitColumn) or (isinstance(value, dict) and "column" in value)
    return "by column" if is_column else "by shares"  # spaces: no key of a file can be taken for these names


SplitSource = Annotated[
    Annotated[Splits, Tag("by shares")] | Annotated[SplitColumn, Tag("by column")], Discriminator(_way_of_splitting)
]


class Dataset(Declared):
    """One JSON Lines file and what its columns mean."""

    path: InsidePath
    inputs: dict[str, str] = Field(min_length=1, description="Prompt variable: column of the file.")
    answer: str | dict[str, str] = Field(
        description="Column of the gold answer, or {key: column} to build a JSON object from several columns."
    )
    id: str | None = Field(default=None, description="Column of an identifier, checked to be unique.")
    slice: str | None = None
    twin: str | None = Field(default=None, description="Column that two counterfactual rows share.")
    group: str | None = Field(default=None, description="Column of a conversation: its rows are one cluster.")
    attack: str | None = Field(default=None, description="Column that says what an obedient model would give away.")
    splits: SplitSource = Splits(train=0.7, validation=0.05, test=0.25)
    overrides: tuple[SplitOverride, ...] = ()
    repeated: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="What becomes of a row that another one repeats: the same inputs and answer, or, where the data "
        "carries its own splits, nearly the inputs of a row that is kept for validation or test.",
    )


class NearDuplicates(Declared):
    """Two rows are near-duplicates if their inputs share this much of their character n-grams (Jaccard)."""

    ngram: Annotated[int, Field(ge=1, le=64)] = 5
    similarity: Annotated[float, Field(ge=0.5, le=1)] = 0.8


class Prepare(Declared):
    """How raw rows become splits."""

    near_duplicates: NearDuplicates = NearDuplicates()


class LengthRange(Declared):
    """Allowed length of a text, in characters."""

    min: Count = 1
    max: Count = 10_000

    @model_validator(mode="after")
    def _in_order(self) -> LengthRange:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Validation(Declared):
    """What must hold for one data set before anything is trained or evaluated on it."""

    prompt: InsidePath = Field(description="Prompt that these rows are for; its jsonSchema binds the gold answers.")
    min_rows: Count = 1
    input_length: LengthRange = LengthRange()
    answer_length: LengthRange = LengthRange()
    max_near_duplicate_rate: Share = 0.02
    labels: dict[str, tuple[str, ...]] = Field(default={}, description="Answer key: allowed values.")
    max_label_share: Share = Field(default=1.0, description="Largest share that one value of a label may have.")
    min_label_rows: int = Field(default=0, ge=0, description="Fewest rows that each allowed value must have.")
    slices: tuple[str, ...] = Field(default=(), description="Allowed slices; empty allows any.")


# --- models ---------------------------------------------------------------------------------------------------


class Price(Declared):
    """USD per million tokens."""

    prompt_usd: Usd
    completion_usd: Usd


class PackageModel(Declared):
    """A GGUF or safetensors file inside a published Python package."""

    source: Literal["package"]
    name: str
    version: str
    file: InsidePath
    sha256: Sha256
    license: str
    price: Price


class HubModel(Declared):
    """A model on a hub, pinned by commit; weights are safetensors or GGUF only."""

    source: Literal["hub"]
    id: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    sha256: dict[str, Sha256] = Field(min_length=1, description="Weight file: SHA-256.")
    license: str
    price: Price


class DirectoryModel(Declared):
    """A model folder in this repository (transformers layout, safetensors)."""

    source: Literal["directory"]
    path: InsidePath
    sha256: dict[str, Sha256] = Field(min_length=1, description="Weight file: SHA-256.")
    license: str
    price: Price


class RegisteredModel(Declared):
    """A model version in the MLflow registry."""

    source: Literal["registry"]
    name: str
    alias: str
    price: Price


class EndpointModel(Declared):
    """A model behind an OpenAI-compatible endpoint."""

    source: Literal["endpoint"]
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", description="Without user or password.")]
    model: str
    api_key_variable: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = Field(
        default=None, description="Environment variable that holds the key; never the key itself."
    )
    price: Price
    concurrency: Count = 8
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    max_attempts: Count = 6
    max_spend_usd: Usd = Field(
        default=1.0, description="Most that all commands in one folder may spend at this endpoint in a day (UTC)."
    )
    stream: bool = True


ModelSource = Annotated[
    PackageModel | HubModel | DirectoryModel | RegisteredModel | EndpointModel, Field(discriminator="source")
]


# --- training -------------------------------------------------------------------------------------------------


class Lora(Declared):
    """Low-rank adapters over the named linear layers (Hu et al. 2021)."""

    rank: Count = 8
    alpha: Count = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    last_layers: Count | None = Field(
        default=None, description="Adapt only the last so many layers: training stops short of the others; null is all."
    )


class Train(Declared):
    """Supervised fine-tuning of the base model."""

    base: Name
    dataset: Name
    prompt: InsidePath
    rows_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Share of the training rows that is used, for learning curves."
    )
    epochs: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Count = 16
    gradient_accumulation: Count = 1
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    warmup_share: Share = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Count = Field(default=512, description="Longest row, prompt and answer together.")
    lora: Lora = Lora()
    quantization: Literal["none", "nf4"] = Field(default="none", description="nf4 is QLoRA and needs a GPU.")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    processes: Count = Field(default=1, description="GPUs, through accelerate launch.")
    checkpoint_steps: Count = 10
    checkpoints_kept: Count = 3


class Candidate(Declared):
    """The fine-tuned model, as far as training does not read it: a new price trains nothing."""

    price: Price


# --- evaluation -----------------------------------------------------------------------------------------------


class Judge(Declared):
    """A model that grades answers, with the human-labelled rows that calibrate it."""

    model: Name
    prompt: InsidePath
    calibration: InsidePath | None = Field(
        default=None, description="JSON Lines with `input`, `output`, `label` (0 or 1, a person's)."
    )


class Classifier(Declared):
    """A sequence classifier by hub id or folder, whose probability of `label` is the metric."""

    id: str
    revision: str | None = Field(default=None, description="Commit of the hub's repository; null for a folder.")
    sha256: dict[str, Sha256] = Field(min_length=1, description="Weight file, and for a folder config.json: SHA-256.")
    label: str
    direction: Literal["higher", "lower"] = "lower"
    pair: bool = Field(default=False, description="Classify (input, output) as a pair, as NLI models do.")


class Suite(Declared):
    """One evaluation: these rows, rendered by this prompt, answered by this model, measured so."""

    dataset: Name
    split: Literal["train", "validation", "test"] = Field(description="Written out, for dvc.yaml reads it too.")
    prompt: InsidePath
    model: Name = Field(description="`candidate` (the fine-tuned model) or a name under `models`.")
    repeats: Count = 1
    max_rows: Count | None = Field(default=None, description="First so many rows by id; null is all.")
    metrics: tuple[str, ...] = Field(min_length=1)
    judges: dict[Name, Judge] = {}
    classifiers: dict[Name, Classifier] = {}


class Latency(Declared):
    """Single, uncached requests, taken from the rows of one suite."""

    suite: Name
    requests: Count = 60
    warmup: int = Field(default=3, ge=0)


class Engine(Declared):
    """The local engine."""

    batch_size: Count = 32
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Track(Declared):
    """Where runs are recorded; the server is `MLFLOW_TRACKING_URI`, by default a file in this folder."""

    experiment: str = "gatehouse"
    model_name: Name = "gatehouse"


class Params(Declared):
    """`params.yaml`."""

    schema_version: Literal[1]
    seed: int = Field(ge=0, lt=2**32)
    datasets: dict[Name, Dataset] = Field(min_length=1)
    prepare: Prepare = Prepare()
    validate_: dict[Name, Validation] = Field(default={}, alias="validate")
    models: dict[Name, ModelSource] = Field(min_length=1)
    train: Train
    candidate: Candidate = Field(description="The fine-tuned model.")
    suites: dict[Name, Suite] = Field(min_length=1)
    latency: Latency
    engine: Engine = Engine()
    track: Track = Track()

    def price(self, model: str) -> Price:
        """Return the declared price of a model; `candidate` has its own section."""
        return self.candidate.price if model == "candidate" else self.models[model].price


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Load `params.yaml`.

    Raises:
        ConfigError: The file is missing or wrong; the message names line and key.
    """
    return load(path, Params)


def schema() -> dict[str, Any]:
    """Return the JSON Schema that editors use."""
    return Params.model_json_schema(by_alias=True)
