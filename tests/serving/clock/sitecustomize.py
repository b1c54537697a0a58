"""A wall clock that a test can set: the file named by GATEHOUSE_TEST_CLOCK holds seconds to add."""

import os
import time
from contextlib import suppress
from pathlib import Path

_now = time.time
_path = Path(os.environ["GATEHOUSE_TEST_CLOCK"])


def _shifted() -> float:
    shift = 0.0
    with suppress(OSError, ValueError):
        shift = float(_path.read_text())
    return _now() + shift


time.time = _shifted
