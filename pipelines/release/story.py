"""The story of one release as Markdown, from its history alone: for a job's summary and for the page of a release."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pipelines.core.github.limits import fit
from pipelines.core.markdown import code, inline
from pipelines.release import comparison_text, figures, story_chart, story_tables
from pipelines.release.compare import Comparison
from pipelines.release.history import ENDS, Event, History
from pipelines.release.looks import Told, told_of
from pipelines.release.manifest import Manifest

MOST_CHARACTERS = 60_000  # GitHub refuses a body above 65,536
MOST_EVENTS = 80
CUT = "**Cut off here: GitHub takes 65,536 characters. The history file in the repository holds all of it.**"
RUN = re.compile(r"https://[A-Za-z0-9.-]+/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+/actions/runs/([0-9]{1,20})")
MARKS = {
    "advance": "✅ advance",
    "rollback": "❌ rollback",
    "hold": "✋ hold",
    "unknown": "❔ unknown",
    "invalid": "⚠️ invalid",
}


class Passage(NamedTuple):
    """One step of a rollout that is over, or under way.

    Attributes:
        name: As people read it.
        share: Of traffic, 0 to 1; None where no user was.
        seconds: How long it took.
        told: The verdict at its end, or None.
        mark: How it ended.
        why: One sentence; anybody's text.
    """

    name: str
    share: float | None
    seconds: float
    told: Told | None
    mark: str
    why: str


def story(
    history: History,
    *,
    manifest: Manifest | None = None,
    comparison: Comparison | None = None,
    attempt: int | None = None,
) -> str:
    """Write what happened to a release.

    Args:
        history: Of the release.
        manifest: What it is made of, where that is to be shown.
        comparison: With the version before, likewise.
        attempt: Which attempt is told; the last one by default.

    Returns:
        GitHub's Markdown, 60,000 characters at most, outcome first; nothing in it can format, link or notify.
    """
    events = history.of_attempt(attempt or max((event.attempt for event in history.events), default=1))
    passages = passages_of(events)
    parts = [
        _outcome(history, events),
        _passages(passages),
        story_chart.shares(events),
        *_evidence(events),
        _made_of(manifest),
        _folded("What Git tells", _log(events)),
        _compared(comparison),
    ]
    return fit("\n\n".join(part for part in parts if part) + "\n", MOST_CHARACTERS, CUT)


# --- how it ended ---------------------------------------------------------------------------------------------


def _outcome(history: History, events: Sequence[Event]) -> str:
    alert, said = outcome(history, events)
    return f"> [!{alert}]\n> {said}"


def outcome(history: History, events: Sequence[Event]) -> tuple[str, str]:
    """Return the kind of alert, and one safe line that says how a release ended or where it is."""
    tag = f"**{inline(history.tag, 60)}"
    if not events:
        return "NOTE", f"{tag} has not begun.**"
    last = events[-1]
    end = next((event for event in reversed(events) if event.action in ENDS), None)
    back = next((event for event in reversed(events) if event.action == "rollback"), None)
    if back is not None:
        by_person = back.verdict is None and back.step in ("restore", "finalise")
        is_failed = back.verdict is None or back.verdict.get("name") == "rollback"
        alert = "CAUTION" if is_failed else "WARNING"  # time was up, or nothing could be measured
        word = "was taken back by a person" if by_person else "was rolled back"
        rest = f" {inline(_rest(end), 200)}" if end else " The way back is not finished yet."
        return alert, f"{tag} {word}.** {inline(_why(back), 400)}.{rest}"
    if end is not None:
        return "TIP", f"{tag} is released.** {_instead(events)}"
    if last.action == "hold":
        return "WARNING", f"{tag} is held.** {inline(_why(last), 400)}"
    return "NOTE", f"{tag} is on its way.** {inline(last.said, 300)}"


def _rest(end: Event) -> str:
    """Return what a last event says beside the name of the release: who serves all traffic now."""
    rest = end.said.partition(": ")[2] or end.said
    return f"{rest}."


def _why(event: Event) -> str:
    """Return what an event's sentence says beside its name."""
    return event.said.partition(": ")[2] or event.said


def _instead(events: Sequence[Event]) -> str:
    """Say since when it serves, and what let it through."""
    champion = next((event for event in events if event.said.startswith("Make ")), events[-1])
    instead = re.search(r"the champion instead of ([^:]+):", champion.said)
    before = f" instead of {inline(instead[1], 60)}" if instead else ""
    return f"It serves all traffic{before} since {_moment(events[-1])} UTC: {inline(_why(champion), 240)}."


def _moment(event: Event) -> str:
    """Write when something happened; what is no time is shown as it stands."""
    return code(event.at.replace("T", " ").removesuffix("Z"), 20)


# --- the steps ------------------------------------------------------------------------------------------------


def passages_of(events: Sequence[Event]) -> list[Passage]:
    """Return the steps of an attempt in order, each with how it ended."""
    found: list[Passage] = []
    began = story_chart.seconds(events[0].at) if events else 0.0
    for event in events:
        at, told = story_chart.seconds(event.at), told_of(event)
        if event.action in ("advance", "rollback") and event.stage is not None:
            mark = MARKS["advance" if event.action == "advance" else "rollback"]
            share = story_tables.number(event.stage.get("weight"))
            why = told.reasons[0] if told and told.reasons else _why(event)
            why = _why(event) if event.action == "rollback" else why
            found.append(Passage(str(event.stage.get("name", event.step)), share, at - began, told, mark, why))
        elif event.action == "done" and event.step in ("staging", "smoke", "deploy"):
            found.append(
                Passage(event.step, None, at - began, None, "✅", _why(event) if event.step == "smoke" else "")
            )
        elif event.action == "rollback":
            found.append(Passage(event.step, None, at - began, None, MARKS["rollback"], _why(event)))
        elif event.action == "hold":
            found.append(Passage("hold", None, at - began, told, "✋", _why(event)))
            continue  # the stage goes on afterwards
        elif event.action not in ("start", "done", "begin", "resume"):
            continue
        began = at
    return found


def _passages(passages: Sequence[Passage]) -> str:
    if not passages:
        return ""
    lines = ["| step | share | requests | took | | why |", "|:--|--:|--:|--:|:--|:--|"]
    for one in passages:
        share = figures.NOTHING if one.share is None else figures.share(one.share)
        requests = figures.count(one.told.n_stage if one.told else None)
        cells = [share, requests, figures.duration(one.seconds), one.mark]
        unbroken = [story_tables.unbroken(cell) for cell in (f"**{inline(one.name, 40)}**", *cells)]
        lines.append(f"| {' | '.join([*unbroken, inline(one.why, 240)])} |")
    return "\n".join(lines)


# --- what it rests on -----------------------------------------------------------------------------------------


def _last_told(events: Sequence[Event]) -> Told | None:
    """Return the last verdict that saw gates."""
    told = (told_of(event) for event in reversed(events))
    return next((one for one in told if one is not None and one.gates), None)


def _evidence(events: Sequence[Event]) -> list[str]:
    found = []
    if last := _last_told(events):
        found.append(f"### The gates at the end\n\n{story_tables.gates(last)}")
    told = (told_of(event) for event in reversed(events))
    compared = next((one for one in told if one is not None and one.compared), None)
    if compared is not None:
        found.append(f"### The A/B test\n\n{story_tables.compared(compared)}")
    return found


def _made_of(manifest: Manifest | None) -> str:
    return f"### What it is made of\n\n{story_tables.made_of(manifest)}" if manifest else ""


def _log(events: Sequence[Event]) -> str:
    """Tell the events as Git's commits do, with who did each."""
    lines = []
    for event in events[:MOST_EVENTS]:
        lines.append(f"- {_moment(event)} {inline(event.said, 300)} <sub>{by(event.by)}</sub>")
    if len(events) > MOST_EVENTS:
        lines.append(f"- and {len(events) - MOST_EVENTS:,} more in the history file")
    return "\n".join(lines)


def by(name: str) -> str:
    """Write who did something: a run's address becomes a link, everything else is plain text."""
    run = RUN.fullmatch(name)
    return f"[run {run[1]}]({name})" if run else inline(name, 80)


def _compared(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    title = f"Compared with {inline(comparison.before.tag, 60)}"
    return _folded(title, comparison_text.sections(comparison))


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>" if body else ""
