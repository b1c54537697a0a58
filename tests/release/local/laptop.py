"""A repository as `make run` leaves it, in small: a two-layer model that answers, and a decision about it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipelines.core import records
from pipelines.core.files import digest, sha256, write_json
from pipelines.core.inputs import input_digest_at
from pipelines.core.records import Output, Record
from pipelines.core.rows import Row, write_rows

ROOT = Path(__file__).parents[3]
ANSWER = '{"intent": "fault"}'
PROMPT = {
    "name": "triage",
    "modelParameters": {"maxTokens": 16, "temperature": 0},
    "responseFormat": "json_schema",
    "jsonSchema": json.dumps(
        {
            "name": "triage",
            "schema": {"type": "object", "properties": {"intent": {"enum": ["fault"]}}, "required": ["intent"]},
        }
    ),
    "messages": [{"role": "user", "content": "{{message}}"}],
    "x-gatehouse": {"version": 1, "owners": ["desk"], "inputs": {"message": "string"}, "suite": "triage"},
}
PRICE = {"prompt_usd": 0.01, "completion_usd": 0.02}
PARAMS: dict[str, Any] = {
    "schema_version": 1,
    "seed": 7,
    "datasets": {"triage": {"path": "data/triage.jsonl", "inputs": {"message": "message"}, "answer": "answer"}},
    "models": {
        "base": {
            "source": "directory", "path": "vendor/base", "license": "Apache-2.0", "price": PRICE,
            "sha256": {"model.safetensors": "0" * 64},
        }
    },
    "train": {"base": "base", "dataset": "triage", "prompt": "prompts/triage.prompt.yml"},
    "candidate": {"price": PRICE},
    "suites": {
        "triage": {"dataset": "triage", "split": "test", "prompt": "prompts/triage.prompt.yml", "model": "candidate",
                   "metrics": ["exact_match"]},
    },
    "latency": {"suite": "triage", "requests": 60},
}  # fmt: skip
SERVING: dict[str, Any] = {
    "schema_version": 1,
    "upstreams": {"candidate": {"kind": "process", "model": "candidate", "port": 8101, "max_active": 1}},
    "prices": {"candidate": PRICE},
    "routes": {
        "triage": {
            "salt": "triage-1",
            "variants": {"stable": {"upstream": "candidate", "weight": 100}},
            "prompt": "prompts/triage.prompt.yml",
            "guardrails": "labels",
        }
    },
    "guardrails": {"labels": {"out": [{"rule": "json_schema", "retries": 1, "action": "flag"}]}},
    "projects": {"support-desk": {}},
    "metrics": {"latency_bounds_s": [0.1, 0.25, 0.5, 1, 2, 5, 10]},
}
CANARY: dict[str, Any] = {
    "local": {
        "requests_per_minute": 600,
        "max_requests_per_user": 1,
        "max_unknown_s": 120,
        "look_every_s": 1,
        "ready_within_s": 240,
        "gates": {
            "error_rate": {"ceiling": 0.05},
            "schema_failure_rate": {"ceiling": 0.2},
            "latency_p95_ms": {"ceiling": 2000},
        },
        "stages": [
            {"weight": 10, "require": "no_harm", "min_requests": 3, "max_duration_s": 60},
            {"weight": 50, "require": "proven", "min_requests": 20, "max_duration_s": 120},
            {"weight": 100, "require": "proven", "min_requests": 10, "max_duration_s": 60},
        ],
    }
}
AB_TEST: dict[str, Any] = {
    "primary": {"metric": "schema_failure_rate", "margin": 0.3},
    "local": {"unit": "request", "weight": 50, "n_opt": 200, "window_s": 1, "max_duration_s": 120},
}
FORM = {"name": "form", "stage": "unit", "suite": "triage", "metrics": {"exact_match": {"floor": 0.5}}}
GATES: dict[str, Any] = {"schema_version": 1, "evaluation": {"gates": [FORM]}, "canary": CANARY, "ab_test": AB_TEST}
WHO = {
    "GIT_AUTHOR_NAME": "Rita", "GIT_AUTHOR_EMAIL": "rita@example.com",
    "GIT_COMMITTER_NAME": "Rita", "GIT_COMMITTER_EMAIL": "rita@example.com", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip


class Laptop:
    """The repository; commands run in it as people type them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder

    @classmethod
    def make(cls, folder: Path, model: Path) -> Laptop:
        """Lay it out; `model` is a folder as `answering_model` makes it."""
        laptop = cls(folder)
        folder.mkdir(parents=True)
        laptop.git("init", "--quiet", "--initial-branch", "main")
        laptop.git("config", "user.name", "Rita")
        laptop.git("config", "user.email", "rita@example.com")
        shutil.copytree(model, folder / "models/candidate")
        rows = [Row(f"{at:016x}", {"message": f"My doorbell {at} stopped ringing."}, ANSWER) for at in range(40)]
        write_rows(folder / "data/prepared/triage/test.jsonl", rows)
        files = {
            ".gitignore": ".*.tmp\n.gatehouse/\n/models/\n/data/prepared/\nmlflow.db*\nmlruns/\n",
            "data/triage.jsonl": '{"message": "x", "answer": "y"}\n',
            "pipelines/code.py": "x = 1\n",
            **{name: yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False) for name, value in {
                "params.yaml": PARAMS, "serving.yaml": SERVING, "gates.yaml": GATES,
                "prompts/triage.prompt.yml": PROMPT}.items()},
        }  # fmt: skip
        laptop.commit(files, "Begin")
        return laptop

    def commit(self, files: dict[str, str], message: str) -> None:
        """Commit files on main and decide about the tree."""
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        self.decide()

    def decide(self) -> None:
        """Record that the commit passes, with the model that lies here."""
        commit = self.git("rev-parse", "HEAD")
        place = self.root / "models/candidate"
        manifest = {
            f"models/candidate/{path.name}": Output(
                sha256=sha256(path), size=path.stat().st_size, md5=hashlib.md5(path.read_bytes()).hexdigest()
            )
            for path in sorted(place.iterdir())
        }
        record = Record(
            schema_version=1, input_digest=input_digest_at(commit, self.root), verdict="pass", decision={"gates": []},
            commit=commit, lock="schema: '2.0'\n", manifest=manifest,
        )  # fmt: skip
        records.write(record.as_file(), "Decide", self.root, remote=None)

    def tag(self, name: str) -> None:
        self.git("tag", "--annotate", "--message", name, name)

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True, env={**os.environ, **WHO}
        ).stdout.strip()

    def start(self, verb: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a script in the repository."""
        environment = {**os.environ, **WHO, "PYTHONPATH": str(ROOT), **variables}
        environment.pop("MLFLOW_TRACKING_URI", None)
        return subprocess.Popen(
            [sys.executable, "-m", f"scripts.{verb}", *arguments], cwd=self.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, verb: str, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run a script to its end; return its exit code and what it said."""
        process = self.start(verb, *arguments, **variables)
        said, _ = process.communicate(timeout=300)
        return process.returncode, said

    def subjects(self) -> list[str]:
        return self.git("log", "--reverse", "--format=%s", "main").splitlines()


def build_answering_model(folder: Path, tiny: Path) -> None:
    """Teach a two-layer model one answer to everything: a real model whose answers fit a schema."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    asked = ["My doorbell 1 stopped ringing.", "Hello.", "Where is my parcel?", "My doorbell 17 stopped ringing."]
    prompts = [f"<|im_start|>user\n{one}<|im_end|>\n<|im_start|>assistant\n" for one in asked]
    answer = tokenizer(f"{ANSWER}<|im_end|>")["input_ids"]
    rows = [(tokenizer(one)["input_ids"], answer) for one in prompts]
    length = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full((len(rows), length), -100)
    for at, (prompt, reply) in enumerate(rows):
        ids[at, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        labels[at, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = json.loads((tiny / "model.json").read_text())
    weights = sha256(folder / "model.safetensors")
    write_json(folder / "model.json", {**card, "digest": digest({"weights": weights})})
