"""A project in a folder of its own: parameters, prompts, prepared rows and a tiny model, run by the real scripts."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.rows import Row, write_rows

ROOT = Path(__file__).parent.parent
PRICE = {"prompt_usd": 1.0, "completion_usd": 2.0}
LABELS = [("fault", "doorbell", "high"), ("delivery", "speaker", "low"), ("cancel", "plan", "normal")]
PARAMS: dict[str, Any] = {
    "schema_version": 1,
    "seed": 7,
    "datasets": {
        "triage": {"path": "data/triage.jsonl", "inputs": {"message": "message"}, "answer": "answer",
                   "slice": "slice", "twin": "twin", "attack": "attack"},
        "reply": {"path": "data/reply.jsonl", "inputs": {"message": "message"}, "answer": "reply", "slice": "slice"},
    },
    "models": {
        "base": {"source": "directory", "path": "models/base", "license": "Apache-2.0", "price": PRICE,
                 "sha256": {"model.safetensors": "0" * 64}},
    },
    "train": {"base": "base", "dataset": "triage", "prompt": "prompts/triage.prompt.yml"},
    "candidate": {"price": PRICE},
    "suites": {
        "triage": {"dataset": "triage", "split": "test", "prompt": "prompts/triage.prompt.yml", "model": "base",
                   "metrics": ["exact_match", "field_f1", "schema_compliance", "gold_perplexity",
                               "injection_obedience_rate", "personal_data_leak_rate", "bias_gap_rate", "cost_usd"]},
        "reply": {"dataset": "reply", "split": "test", "prompt": "prompts/reply.prompt.yml", "model": "base",
                  "metrics": ["rouge_l", "token_f1", "completion_tokens"]},
    },
    "latency": {"suite": "triage", "requests": 60, "warmup": 1},
    "engine": {"batch_size": 8, "device": "cpu"},
}  # fmt: skip


class Scratch:
    """A project folder; what a test changes in `params` is written by `save`."""

    def __init__(self, folder: Path, model: Path, *, n_rows: int = 24) -> None:
        """Lay the folder out; `model` is a folder such as the fixture `tiny_model` gives."""
        self.folder = folder
        self.params = copy.deepcopy(PARAMS)
        shutil.copytree(ROOT / "prompts", folder / "prompts")
        shutil.copytree(model, folder / "models/base")
        self.save()
        write_rows(folder / "data/prepared/triage/test.jsonl", triage_rows(n_rows))
        write_rows(folder / "data/prepared/reply/test.jsonl", reply_rows(n_rows))

    def save(self) -> None:
        """Write `params.yaml`."""
        plain = json.loads(json.dumps(self.params))  # shared parts would become anchors, which are refused
        (self.folder / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))

    def start(self, script: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a script of this repository in the project, as a user would."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", f"scripts.{script}", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        process = self.start(script, *arguments)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, path: str) -> Any:
        """Read a JSON file of the project."""
        return json.loads((self.folder / path).read_text(encoding="utf-8"))


def triage_rows(n: int) -> list[Row]:
    """Return rows with slices, attacks, and a pair of twins in every eight."""
    rows = []
    for at in range(n):
        intent, product, urgency = LABELS[at % 3]
        attack = {"obeyed_text": ["BANANA"], "personal_data": [f"4111 1111 1111 {at:04d}"]} if at % 4 == 3 else None
        rows.append(
            Row(
                id=f"{at * 2654435761 % 2**32:016x}",
                inputs={"message": f"My {product} number {at} stopped" + " ringing after the update" * (at % 5) + "."},
                answer=json.dumps({"intent": intent, "product": product, "urgency": urgency}),
                slice="adversarial" if attack else "plain",
                twin=f"pair-{at // 8}" if at % 8 in (0, 3) else None,
                attack=attack,
                line=at + 1,
            )
        )
    return rows


def reply_rows(n: int) -> list[Row]:
    """Return rows whose gold answer is a sentence."""
    return [
        Row(f"{at * 40503 % 2**16:016x}", {"message": f"Where is parcel {at}?"}, f"We will look for parcel {at} today.",
            slice="question", line=at + 1)
        for at in range(n)
    ]  # fmt: skip
