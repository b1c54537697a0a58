"""A few fixed questions to a slot, through the gateway: the prompts' own test data, asked as a user of that side."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from pipelines.core.errors import ConfigError, one_line
from pipelines.llm.prompts import Prompt
from pipelines.release.kubernetes.configuration import TESTERS, Version
from pipelines.release.targets import Slot, Smoked

TIMEOUT_S = 120.0
MOST_QUESTIONS = 3


def test(url: str, key: str, slot: Slot, version: Version) -> Smoked:
    """Ask every route that has a prompt the first rows of its test data.

    Args:
        url: The gateway's public address.
        key: Its key.
        slot: Which side is asked.
        version: What that side runs.

    Returns:
        Whether every answer came, is not empty, and fits its schema where the prompt declares one.

    Raises:
        ConfigError: No prompt has any test data.
    """
    n_asked, n_good, problem = 0, 0, ""
    for route, prompt in prompts_of(version).items():
        for inputs in prompt.test_data[:MOST_QUESTIONS]:
            n_asked += 1
            status, value = _ask(f"{url}/v1/predict/{route}", {"inputs": inputs, "user": TESTERS[slot]}, key)
            wrong = _wrong(status, value, prompt)
            n_good += not wrong
            problem = problem or (wrong and f"{route}: {wrong}")
    if not n_asked:
        raise ConfigError("prompts/: none that serving.yaml names has testData, so nothing can be asked; add a row")
    said = f"{n_good} of {n_asked} questions answered well"
    return Smoked(n_good == n_asked, f"{said}; {problem}" if problem else said)


def prompts_of(version: Version) -> dict[str, Prompt]:
    """Return the prompt of each route that has one."""
    found = {}
    for name, route in version.serving["routes"].items():
        path = (route.get("variants") or {}).get("stable", {}).get("prompt") or route.get("prompt")
        if path:
            found[name] = Prompt.model_validate(yaml.safe_load(version.prompts[str(PurePosixPath(path))]))
    return found


def _wrong(status: int, value: Any, prompt: Prompt) -> str:
    if status != http.HTTPStatus.OK or not isinstance(value, dict) or "output" not in value:
        error = value.get("error") if isinstance(value, dict) else None
        said = str(error.get("message", "")) if isinstance(error, dict) else ""
        return one_line(f"{status} {said}", 120) if status else "no answer"
    if value["output"] in ("", None, [], {}):
        return "an empty answer"
    schema = prompt.schema_of_answer()
    if schema is None:
        return ""
    from jsonschema import Draft202012Validator

    fits = Draft202012Validator(schema).is_valid(value["output"])
    return "" if fits else "an answer that does not fit its schema"


def _ask(url: str, body: Mapping[str, Any], key: str) -> tuple[int, Any]:
    """Return status and value of an answer; 0 where nobody answers."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=tls)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    try:
        connection.request("POST", parts.path, json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None
