"""What developers and attackers change in the scenarios, as arguments of `Project.open` and `Pull.push`."""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

from tests.act.project import Change

REPLY = "prompts/reply.prompt.yml"
Changes = Mapping[str, Change]


def wording(new: str) -> Changes:
    """Word the reply prompt in another way: no training renders it."""
    return {REPLY: lambda text: text.replace("warm, plain", new)}


def tokens(most: int) -> Changes:
    """Let the reply prompt's answers be longer or shorter: what the gate `length` is about."""

    def change(text: str) -> str:
        prompt = yaml.safe_load(text)
        prompt["modelParameters"]["maxTokens"] = most
        return yaml.safe_dump(prompt, sort_keys=False)

    return {REPLY: change}


def ceiling(limit: float) -> Changes:
    """Move the ceiling of the gate `length`."""

    def change(text: str) -> str:
        gates = yaml.safe_load(text)
        gates["evaluation"]["gates"][0]["metrics"]["completion_tokens"]["ceiling"] = limit
        return yaml.safe_dump(gates, sort_keys=False)

    return {"gates.yaml": change}


def rows(n: int) -> Changes:
    """Add rows to the reply data."""
    added = [
        {
            "message": f"Is shop number {at} open on Sundays?",
            "reply": f"Shop {at} is open from ten.",
            "slice": "question",
        }
        for at in range(n)
    ]
    return {"data/reply.jsonl": lambda text: text + "".join(json.dumps(row) + "\n" for row in added)}


GOOD = wording("brief, warm")  # evaluated once per session, taken from main's run cache afterwards
LONG = tokens(30)  # the same; the gate `length` says no
DOCS: Changes = {"docs/guide.md": "# Guide\n\nRead on.\n"}
