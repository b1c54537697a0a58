"""What a person watches while a release runs: a table that redraws itself, or lines where nothing can be redrawn."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from pipelines.core.errors import one_line
from pipelines.release import cells, figures, screen
from pipelines.release.looks import Look, Told

SAID_CHARACTERS = 300
# What a terminal without these signs is shown.
ASCII = str.maketrans({"≤": "<=", "≥": ">=", "\N{EN DASH}": "-", "\N{MINUS SIGN}": "-", "…": "..."})
EVERY_S = 60.0  # between two lines that say nothing new
GATES_IN_LINE = 4


class Live:
    """Draws looks below the lines that are said.

    On a terminal the last look stays at the bottom and is drawn anew in place. Elsewhere each change is a line, and
    so is each minute without one. Nothing of the terminal is changed that would have to be put back, so a run may
    be interrupted anywhere.
    """

    def __init__(self, stream: TextIO | None = None, *, is_terminal: bool | None = None) -> None:
        """Take a stream, standard output by default; what it can do is asked of it."""
        self.stream = sys.stdout if stream is None else stream
        self.is_terminal = _is_terminal(self.stream) if is_terminal is None else is_terminal
        self.has_colour = self.is_terminal and not os.environ.get("NO_COLOR")
        self.glyphs = screen.Glyphs() if _writes_signs(self.stream) else screen.PLAIN
        self._last: Look | None = None
        self._drawn: list[cells.Line] = []
        self._said: tuple[object, ...] = ()
        self._said_at = 0.0

    def say(self, line: str) -> None:
        """Write one line that stays."""
        text = one_line(line, SAID_CHARACTERS)
        if not self.is_terminal:
            self._write(f"{text}\n")
            return
        frame = self._erased() + f"{text}\n"
        self._drawn = []
        self._write(frame + (self._frame(self._last) if self._last else ""))

    def show(self, look: Look) -> None:
        """Show a look; what was judged last stays in sight until something else is."""
        if self._last and self._last.told and look.told is None and look.tag == self._last.tag:
            look = look._replace(told=self._last.told._replace(verdict="", reasons=()))
        self._last = look
        if self.is_terminal:
            before = self._erased()
            self._write(before + self._frame(look))
        elif (line := self._news(look)) is not None:
            self._write(f"{line}\n")

    def _news(self, look: Look) -> str | None:
        """Return a line where something changed, or where a minute has passed."""
        told = look.told
        failed = tuple(gate.name for gate in told.gates if gate.status == "failed") if told else ()
        news = (look.stage, told.verdict if told else "", failed, bool(look.held), look.blind_s > 0, look.waiting)
        if news == self._said and look.total_s - self._said_at < EVERY_S:
            return None
        is_silent = told is None or not told.verdict
        if is_silent and not look.waiting:
            return None  # the line that was said tells it
        self._said, self._said_at = news, look.total_s
        return one_line(sentence(look), 400)

    def _frame(self, look: Look) -> str:
        size = shutil.get_terminal_size()
        # One column stays free: a full line would wrap. One row stays free for the cursor.
        self._drawn = screen.lines(look, size.columns - 1, self.glyphs)[: max(1, size.lines - 1)]
        write = cells.painted if self.has_colour else cells.bare
        return "".join(f"{write(line)}\n" for line in self._drawn)

    def _erased(self) -> str:
        """Return what takes the last frame away, also where the terminal became narrower meanwhile."""
        width = shutil.get_terminal_size().columns
        rows = sum(cells.height(line, width) for line in self._drawn)
        return f"\x1b[{rows}F\x1b[J" if rows else ""

    def _write(self, text: str) -> None:
        if self.glyphs is screen.PLAIN:
            text = text.translate(ASCII)
        self.stream.write(text)
        self.stream.flush()


def sentence(look: Look) -> str:
    """Return a look as one line."""
    at = f"[{figures.duration(look.total_s)}] {look.stage}"
    if look.told is None or not look.told.verdict:
        return f"{at}: waiting for {look.waiting}"
    held = f"; held by {look.held}" if look.held else ""
    most = f" of {figures.duration(look.most_s)}" if look.most_s is not None else ""
    why = f": {look.told.reasons[0]}" if look.told.reasons else ""
    return f"{at}, {figures.duration(look.elapsed_s)}{most}{_counts(look.told)}; {look.told.verdict}{why}{held}"


def _counts(told: Told) -> str:
    parts = []
    if told.candidate is not None:
        parts.append(f"{figures.count(told.candidate)} against {figures.count(told.stable)} requests")
    gates = [f"{gate.name} {figures.counted(gate)} {figures.status(gate)}" for gate in told.gates[:GATES_IN_LINE]]
    return "".join(f", {part}" for part in [*parts, *gates])


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _writes_signs(stream: TextIO) -> bool:
    try:
        "".join(screen.Glyphs()).encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
