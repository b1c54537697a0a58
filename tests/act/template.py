"""The repository that scenarios start from: this code, a tiny base model, few rows, and gates that a change can pass
or fail on purpose (a random model answers nothing well, but how long it talks is up to the prompt)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.files import sha256

ROOT = Path(__file__).parents[2]
CODE = (
    ".dvc/.gitignore", ".dvc/config", ".dvcignore", ".github/workflows", ".gitignore", "actions", "dvc.yaml", "locks",
    "pipelines", "prompts", "schemas", "scripts",
)  # fmt: skip
OWNER = "olivia"  # the only CODEOWNER
PRICE = {"prompt_usd": 1.0, "completion_usd": 2.0}
PARAMS: dict[str, Any] = {
    "schema_version": 1,
    "seed": 7,
    "datasets": {
        "triage": {"path": "data/triage.jsonl", "inputs": {"message": "message"}, "answer": "answer", "slice": "slice",
                   "splits": {"train": 0.5, "test": 0.5}},
        "reply": {"path": "data/reply.jsonl", "inputs": {"message": "message"}, "answer": "reply", "slice": "slice",
                  "splits": {"test": 1.0}},
    },
    "prepare": {"near_duplicates": {"ngram": 5, "similarity": 0.8}},
    "validate": {
        "triage": {"prompt": "prompts/triage.prompt.yml", "min_rows": 10},
        "reply": {"prompt": "prompts/reply.prompt.yml", "min_rows": 10},
    },
    "train": {"base": "base", "dataset": "triage", "prompt": "prompts/triage.prompt.yml", "epochs": 0.5,
              "batch_size": 8, "lora": {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": "all-linear"}},
    "candidate": {"price": PRICE},
    "suites": {
        "triage": {"dataset": "triage", "split": "test", "prompt": "prompts/triage.prompt.yml", "model": "candidate",
                   "metrics": ["exact_match", "completion_tokens", "cost_usd"]},
        "reply": {"dataset": "reply", "split": "test", "prompt": "prompts/reply.prompt.yml", "model": "base",
                  "metrics": ["token_f1", "completion_tokens", "cost_usd"]},
    },
    "latency": {"suite": "triage", "requests": 20, "warmup": 1},
    "engine": {"batch_size": 8, "device": "cpu"},
}  # fmt: skip
GATES: dict[str, Any] = {
    "schema_version": 1,
    "evaluation": {
        "gates": [
            {"name": "length", "stage": "quality", "suite": "reply",
             "metrics": {"completion_tokens": {"ceiling": 12.0, "max_regression": 8.0, "highest": 30.0}}},
            {"name": "cost", "stage": "performance", "suite": "triage",
             "metrics": {"cost_usd": {"ceiling": 0.01, "highest": 0.02}}},
        ]
    },
}  # fmt: skip


def lay_out(folder: Path, model: Path) -> None:
    """Write the repository's files into an empty folder; `model` is a folder such as the fixture `tiny_model` gives."""
    for name in CODE:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target)
    shutil.copytree(model, folder / "vendor/tiny")
    params = json.loads(json.dumps(PARAMS))
    params["models"] = {
        "base": {"source": "directory", "path": "vendor/tiny", "license": "Apache-2.0", "price": PRICE,
                 "sha256": {"model.safetensors": sha256(model / "model.safetensors")}},
    }  # fmt: skip
    write(folder / "params.yaml", yaml.safe_dump(params, sort_keys=False))
    write(folder / "gates.yaml", yaml.safe_dump(GATES, sort_keys=False))
    write(folder / ".github/CODEOWNERS", f"* @{OWNER}\n")
    write(folder / "docs/guide.md", "# Guide\n")
    for name, tokens in (("triage", 4), ("reply", 6)):
        prompt = yaml.safe_load((ROOT / f"prompts/{name}.prompt.yml").read_text(encoding="utf-8"))
        prompt["modelParameters"]["maxTokens"] = tokens
        write(folder / f"prompts/{name}.prompt.yml", yaml.safe_dump(prompt, sort_keys=False))
    write(folder / "data/triage.jsonl", first_rows("triage", 48))
    write(folder / "data/reply.jsonl", first_rows("reply", 24))


def first_rows(dataset: str, n: int) -> str:
    """Return the first plain rows of the example's data, as JSON Lines."""
    lines = (ROOT / f"data/{dataset}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["slice"] != "adversarial"][:n]
    columns = ("message", "answer", "reply", "slice")
    return "".join(json.dumps({key: row[key] for key in columns if key in row}) + "\n" for row in rows)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
