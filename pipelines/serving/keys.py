"""API keys: made here, kept as SHA-256, compared in constant time."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pipelines.serving.config import Key

PREFIX = "gh-"
MOST_CHARACTERS = 512
LOCAL_KEY = Path(".gatehouse/serving.key")


class Known(NamedTuple):
    """Whose key it was."""

    name: str
    project: str


class Keys:
    """The declared keys.

    A key is 32 random bytes, so a plain hash cannot be searched. It is looked up by the first bytes of its hash, which
    a guesser cannot steer, and then compared in full, in constant time; an unknown one is compared all the same.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self._by_start: dict[bytes, list[tuple[bytes, Known]]] = {}
        for key in keys:
            hashed = bytes.fromhex(key.sha256)
            self._by_start.setdefault(hashed[:4], []).append((hashed, Known(key.name, key.project)))

    def find(self, authorization: bytes) -> Known | None:
        """Return whose key an `Authorization` header holds, or None."""
        if authorization[:7].lower() != b"bearer " or len(authorization) > MOST_CHARACTERS:
            return None
        hashed = sha256(authorization[7:].strip()).digest()
        found = None
        for declared, known in self._by_start.get(hashed[:4], _NOBODY):
            if hmac.compare_digest(declared, hashed):
                found = known
        return found


_NOBODY = [(bytes(32), Known("", ""))]


def new_key() -> tuple[str, str]:
    """Return a new key and its SHA-256 (hex)."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, sha256(key.encode()).hexdigest()


def local_key(project: str, path: Path = LOCAL_KEY) -> Key:
    """Return the key of this machine, made on the first call and kept in a file that only its owner may read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(new_key()[0] + "\n")
        beside.replace(path)
    hashed = sha256(path.read_text(encoding="utf-8").strip().encode()).hexdigest()
    return Key(name="this-machine", project=project, sha256=hashed)
