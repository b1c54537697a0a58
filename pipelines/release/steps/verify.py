"""Verify a tag and begin its release: the first commit of every rollout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pipelines.core.errors import GateFailed
from pipelines.release import clock, manifest, tags
from pipelines.release.history import History
from pipelines.release.state import Release, State, rollout_id
from pipelines.release.steps import restore
from pipelines.release.version import Version, parse_tag
from pipelines.release.words import words_of
from pipelines.release.world import Change, Seen, World, declared, histories, history_of, plan_at


def begin(seen: Seen, tag: str) -> Change | None:
    """Return how a release begins, or None where it is under way or done.

    Raises:
        ConfigError: The tag is none that could be released.
        GateFailed: It may not be released, or another release is on its way.
        ServiceError: The remote or the registry of records cannot be reached.
    """
    world, state = seen.world, seen.state
    parse_tag(tag)
    here = state.candidate or (state.stable if state.stable and state.stable.tag == tag else None)
    if here is not None and here.tag == tag:
        found = tags.object_of(world.root, tag, world.store.remote)
        tags.check_unmoved(tag, found, [(tag, here.tag_object)])
        return None
    files: Mapping[str, bytes] = {}
    if restore.is_late(seen):
        state, serves = restore.given_up(state), state.leaving
        seen = seen._replace(state=state)
        assert serves is not None, "it is only late where something is left"
        files = declared(world, world.environment, partial(seen.manifest, serves))
    if state.step != "idle":
        who = state.candidate or state.stable
        name = who.tag if who else "another release"
        raise GateFailed(f"{tag}: {name} is on its way (step {state.step}); wait, reconcile, or roll it back")
    tagged = tags.verify(world.root, tag, _around(seen, tag))
    built = manifest.build(world.root, tagged, world.images)
    _check_held(world, state, tag, built.content_digest)
    plan = plan_at(world, tagged.commit, built.gates_sha256)
    release = Release(
        version=built.version,
        tag=tag,
        tag_object=built.tag_object,
        commit=built.commit,
        input_digest=built.input_digest,
        model_digest=built.model_digest,
        content_digest=built.content_digest,
        rollout_id=rollout_id(tag, built.commit, built.model_digest),
    )
    history = history_of(world, seen.tip, release.rollout_id) or History(
        rollout_id=release.rollout_id,
        tag=tag,
        tag_object=release.tag_object,
        version=release.version,
        commit=release.commit,
        model_digest=release.model_digest,
        gates_sha256=plan.gates_sha256,
        target=world.target.name,
    )
    attempt = max((event.attempt for event in history.events), default=0) + 1
    after = state.changed(
        candidate=release,
        rollout_id=release.rollout_id,
        attempt=attempt,
        gates_sha256=plan.gates_sha256,
        step="manifest",
        stage=0,
        weight=0.0,
        since=clock.written(seen.now),
        blind_since="",
    )
    again = f" for the {attempt}. time" if attempt > 1 else ""
    approval = f", approved by {tagged.record.approval.user}" if tagged.record.approval else ""
    said = f"Begin release of {tag}{again}: the decision about its tree is {tagged.record.verdict}{approval}"
    event = seen.event(
        "begin", said, attempt=attempt, step="verify", weight=0.0,
        observed={
            "input_digest": release.input_digest,
            "verdict": tagged.record.verdict,
            "run_url": tagged.record.run_url,
        },
    )  # fmt: skip
    return Change(after, event, history, files)


def _around(seen: Seen, tag: str) -> tags.Around:
    world, state = seen.world, seen.state
    newest: Version | None = parse_tag(f"v{state.newest}") if state.newest else None
    told = histories(world, seen.tip)
    return tags.Around(
        tip=seen.tip,
        newest=newest,
        may_return=state.stable is None or state.stable.tag != tag,
        known=[(one.tag, one.tag_object) for one in told],
        signing=world.signing(seen.tip),
        record_of=world.record_of,
        remote=world.store.remote,
    )


def _check_held(world: World, state: State, tag: str, content_digest: str) -> None:
    """Refuse while a person holds releases, and what was rolled back until a person lets it go."""
    if state.pause:
        raise GateFailed(f"{tag}: {state.pause.by} holds every release since {state.pause.at}: {state.pause.why}")
    for held in state.held:
        if held.content_digest == content_digest:
            raise GateFailed(
                f"{tag}: is what {held.tag} was when it was rolled back at {held.at} ({held.why}); "
                f"change something, or lift that with `{words_of(world).let_go.format(held.tag)}`"
            )
