"""What a run says at its end: how it ended, what to do next, and the story on the job's summary page."""

from __future__ import annotations

from pipelines.core.command import is_runner
from pipelines.core.errors import GatehouseError, one_line
from pipelines.core.github.runner import add_summary, set_outputs
from pipelines.core.markdown import inline
from pipelines.release.endings import Outcome
from pipelines.release.history import History
from pipelines.release.manifest import Manifest
from pipelines.release.state import Release, history_path
from pipelines.release.story import story
from pipelines.release.words import words_of
from pipelines.release.world import Seen, World, look

SAID_CHARACTERS = 600


def finish(world: World, outcome: Outcome) -> int:
    """Print how a run ended and what to do next, and hand both to the job that runs this.

    Returns:
        The exit code.
    """
    print(one_line(outcome.said, SAID_CHARACTERS))  # noqa: T201 - what people read
    seen = _seen(world)
    if following := what_next(seen, outcome) if seen else "":
        print(following)  # noqa: T201
    if is_runner():
        set_outputs({"result": outcome.result})
        if seen and seen.history and seen.history.events:
            add_summary(summary(seen, seen.history))
    return outcome.exit_code


def what_next(seen: Seen, outcome: Outcome) -> str:
    """Return the last line: what to do now.

    Args:
        seen: What was read after the run.
        outcome: How it ended.
    """
    words, state, history = words_of(seen.world), seen.state, seen.history
    tag = one_line(history.tag, 60) if history else ""
    if outcome.result == "released" and state.stable:
        before = state.earlier[0].tag if state.earlier else ""
        if not before:
            return f"next: change a prompt, data or a parameter, decide, and {words.release} runs the whole ladder"
        now = one_line(state.stable.tag, 60)
        back = f"; {words.roll_back} takes it back" if tag == now else ""
        return f"next: {words.compare.format(one_line(before, 60), now)}{back}"
    if outcome.result == "rolled_back" and history:
        why = history_path(seen.world.environment, history.rollout_id)
        return f"next: {why} holds the evidence; release a changed version, or let this one: {words.let_go.format(tag)}"
    if outcome.result == "paused":
        return f"next: {words.go_on} lets it go on; {words.roll_back} takes it back"
    if outcome.result == "staged":
        return f"next: the same command without --until staging goes on to {seen.world.environment}"
    if outcome.result == "waiting":
        return f"next: the same command again goes on from here, and so does {words.reconcile}"
    if state.pause:
        return f"next: {words.go_on} lets {state.candidate.tag if state.candidate else 'releases'} go on"
    if state.step != "idle":
        return f"next: {words.reconcile} goes on from here"
    return f"next: {words.release} releases what main has decided about"


def summary(seen: Seen, history: History) -> str:
    """Return the page of a job's summary: what is released, and its story."""
    state = seen.state
    release = next((one for one in (state.candidate, state.stable, *state.earlier) if _is_of(one, history)), None)
    return f"## Release {inline(history.tag, 60)}\n\n{story(history, manifest=_manifest(seen, release))}"


def _is_of(release: Release | None, history: History) -> bool:
    return release is not None and release.rollout_id == history.rollout_id


def _manifest(seen: Seen, release: Release | None) -> Manifest | None:
    """Return a manifest that can be read and is what it says; a summary is written without it as well."""
    if release is None or not release.manifest:
        return None
    try:
        return seen.manifest(release)
    except GatehouseError:
        return None


def _seen(world: World) -> Seen | None:
    """Return what Git says now, or nothing where it cannot be asked: the run has ended all the same."""
    try:
        return look(world)
    except GatehouseError:
        return None
