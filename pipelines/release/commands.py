"""What the scripts of a release share: open the world outside, rehearse a release, judge a recorded one again."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path

from pipelines.core import git, records
from pipelines.core.errors import ConfigError, GateFailed, one_line
from pipelines.core.files import read_text
from pipelines.release import forecast_text, judge, signing, targets, world
from pipelines.release.history import read_history
from pipelines.release.live import Live
from pipelines.release.machine import Bounds
from pipelines.release.replay import Replayed, replay
from pipelines.release.steps import verify
from pipelines.release.store import Store
from pipelines.release.world import World

KEY, REQUIRED = "GATEHOUSE_SIGNING_KEY", "GATEHOUSE_REQUIRE_SIGNED"


def open_world(target: str, remote: str, root: Path = Path()) -> World:
    """Return everything outside that a release acts on.

    Args:
        target: Name of the target.
        remote: Where the state lies, or none.
        root: The repository.

    Raises:
        ConfigError: This is no Git repository, or there is no such target.
    """
    if not target:
        raise ConfigError(
            "--target: is empty; name where it runs, in a workflow by the variable GATEHOUSE_TARGET: kubernetes, "
            "local, or one of your own as package.module:function"
        )
    if not git.is_repository(root):
        raise ConfigError("this folder is no Git repository; a release keeps its state in Git")
    store = Store(root, remote=None if remote == "none" else remote)
    built = targets.build(target, root)
    key, live = os.environ.get(KEY), Live()
    return World(
        root=root,
        store=store,
        target=built.target,
        registry=built.registry,
        clock=built.clock,
        plan_of=built.plan,
        record_of=partial(records.read, root=root, remote=store.remote),
        by=who(root),
        environment=built.environment,
        staging=built.staging,
        key=signing.private_key(key) if key else None,
        is_signed_required=os.environ.get(REQUIRED, "").lower() == "true",
        images=built.images,
        say=live.say,
        show=live.show,
    )


def who(root: Path) -> str:
    """Return the URL of the run that executes this, or the name that Git knows this person by."""
    server, repository, run_id = (
        os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")
    )
    if server and repository and run_id:
        return f"{server}/{repository}/actions/runs/{run_id}"
    try:
        return one_line(git.git(root, "config", "user.name").decode(errors="replace").strip(), 100) or "unknown"
    except git.GitFailed:
        return "unknown"


def bounds(
    opened: World, minutes: float | None, *, once: bool = False, until: str = "end", since: str = "start"
) -> Bounds:
    """Return how far a run goes.

    Args:
        opened: Its clock counts.
        minutes: Longest wait, or None; 0 waits for nothing.
        once: Wait for nothing.
        until: `staging` stops before production.
        since: `traffic` leaves alone what no user meets yet.

    Raises:
        ConfigError: The minutes are none.
    """
    if minutes is not None and not 0 <= minutes < math.inf:
        raise ConfigError(f"--minutes: {minutes:g} is no time to wait; give 0 or more")
    deadline = math.inf if minutes is None else opened.clock.now() + 60 * minutes
    return Bounds(once or minutes == 0, deadline, until == "staging", since == "traffic")


def rehearsed(opened: World, tag: str) -> list[str]:
    """Return what a release of a tag would do; nothing is written.

    Raises:
        ConfigError: The tag is none that could be released.
        GateFailed: It may not be released.
    """
    seen = world.look(opened)
    change = verify.begin(seen, tag)
    if change is None:
        where = f"is on its way (step {seen.state.step})" if seen.state.step != "idle" else "is released already"
        return [f"{tag}: {where}; nothing would begin"]
    candidate = change.state.candidate
    assert candidate is not None, "a release begins with a candidate"
    plan = world.plan_at(opened, candidate.commit, candidate_gates(change))
    stages = [*([plan.ab_test] if plan.ab_test else []), *plan.stages]
    lines = [
        f"{tag}: would be released from commit {candidate.commit[:12]} as rollout {candidate.rollout_id}",
        f"  decision  {change.event.observed['verdict']} about inputs {candidate.input_digest[:12]}",
        f"  model     {candidate.model_digest[:12]}",
        f"  instead   {seen.state.stable.tag if seen.state.stable else 'of nothing: the first release'}",
    ]
    lines += [f"  {one.kind:<9} {one.name}: {one.weight * 100:g} %, at most {one.max_duration_s:g} s" for one in stages]
    if plan.rollout is not None and seen.state.stable is not None:
        lines += forecast_text.lines(plan.rollout, plan.test, plan.run)
    return [*lines, "dry run: nothing was changed"]


def candidate_gates(change: world.Change) -> str:
    """Return the SHA-256 of the gates that a release would go by."""
    return change.state.gates_sha256


def replayed(path: Path, target: str, root: Path = Path()) -> tuple[str, list[Replayed]]:
    """Return the tag of a history, and every verdict of it judged again from its counters; no target is reached.

    Args:
        path: The history, which says itself where it ran.
        target: Where it ran, if that is a target of one's own.
        root: The repository.

    Raises:
        ConfigError: The history is broken, or its commit has no gates.
        GateFailed: Its commit's gates are not those that it names.
    """
    history = read_history(read_text(path).encode(), str(path))
    known = {"local": judge.plan_of("local"), "kubernetes": judge.plan_of("kubernetes")}
    plan_of = known.get(history.target) or targets.build(target, root).plan
    gates = Store(root, remote=None).read(history.commit, "gates.yaml")
    if gates is None:
        raise ConfigError(f"gates.yaml: commit {history.commit[:12]} has none")
    plan = plan_of(gates)
    if plan.gates_sha256 != history.gates_sha256:
        raise GateFailed(f"{path}: names other gates ({history.gates_sha256[:12]}) than its commit has")
    return history.tag, replay(history, plan.judge)
