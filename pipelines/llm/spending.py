"""What is spent at an endpoint in one day, by all commands of this folder together: a sum on disk that all respect."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import math
from collections.abc import Iterator
from pathlib import Path

from pipelines.core.errors import ConfigError
from pipelines.core.files import digest
from pipelines.core.params import EndpointModel


class Ledger:
    """The sum of one endpoint; it begins anew with every day (UTC).

    What a request may cost is booked before it is sent, so what a killed process held stays booked, as if charged.

    Args:
        path: Its file, `.cache/spend/<digest of the endpoint>.json`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, declared: EndpointModel, folder: Path) -> Ledger:
        """Return the ledger of an endpoint: address and model, however many names declare them."""
        name = digest({"base_url": declared.base_url.rstrip("/"), "model": declared.model})
        return cls(folder / f"{name}.json")

    def take(self, usd: float, limit_usd: float) -> bool:
        """Book a sum, if the day's sum stays within the limit; tell whether it was booked.

        Raises:
            ConfigError: The file is not one that was written here.
        """
        with self._locked() as spent:
            if spent.usd + usd > limit_usd:
                return False
            spent.usd += usd
            return True

    def give_back(self, usd: float) -> None:
        """Take back what was booked and not charged; less than nothing books more."""
        with self._locked() as spent:
            spent.usd = max(0.0, spent.usd - usd)

    def today_usd(self) -> float:
        """Return the day's sum, what requests under way may cost included."""
        with self._locked() as spent:
            return spent.usd

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_Sum]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            before = self._read(stream.read(), today)
            spent = _Sum(before)
            yield spent
            if spent.usd != before or not stream.tell():
                stream.seek(0)
                stream.truncate()
                stream.write(json.dumps({"schema_version": 1, "day": today, "usd": spent.usd}) + "\n")

    def _read(self, text: str, today: str) -> float:
        if not text:
            return 0.0
        try:
            value = json.loads(text)
            day, usd = str(value["day"]), float(value["usd"])
            if not math.isfinite(usd) or usd < 0:
                raise ValueError(usd)
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{self.path}: is not what was written there, so nobody knows what was spent today; "
                "delete it to begin at 0 USD"
            ) from None
        return usd if day == today else 0.0


class _Sum:
    def __init__(self, usd: float) -> None:
        self.usd = usd
