"""A progress bar on standard error, with the rate and what came from the cache."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

Progress = Callable[[str, int, int, int], None]
"""Called with (what is done, requests done, of which from cache, of how many)."""


def told(on_progress: Progress | None, what: str, total: int) -> Callable[[int, int], None] | None:
    """Return what an answerer calls with (done, cached), or None where nobody listens."""
    return None if on_progress is None else lambda done, cached: on_progress(what, done, cached, total)


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """Give a function that shows one bar after the other."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}
    # Every refresh is a line of its own in a log file.
    every_s = 0.2 if sys.stderr.isatty() else 15.0

    def show(what: str, done: int, cached: int, total: int) -> None:
        if what not in bars:
            for bar in bars.values():
                bar.close()
            # Cached answers come at once and would flatter the rate.
            bars[what] = tqdm(total=total, desc=what, initial=cached, mininterval=every_s, unit="row")
        bars[what].set_postfix(cached=cached, refresh=False)
        bars[what].update(done - bars[what].n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
