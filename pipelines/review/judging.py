"""From a finished, untrusted run to a folder that can be judged: what GitHub and Git say counts, claims do not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core import git
from pipelines.core.errors import ConfigError, NotEnoughEvidence
from pipelines.core.folders import replacing_folder
from pipelines.core.github.api import Api
from pipelines.core.inputs import input_digest_at
from pipelines.evaluation.baseline import Baseline
from pipelines.evaluation.deciding.caps import unmeasured
from pipelines.evaluation.deciding.judgement import write_decision
from pipelines.review import lifting, plan, pull_request
from pipelines.review.bases import other_bases
from pipelines.review.breakage import broken
from pipelines.review.changes import Changes, changes, code_changed
from pipelines.review.commits import changed_paths, common, fetch
from pipelines.review.context import Context
from pipelines.review.earlier import earlier_code
from pipelines.review.lifting import Teams
from pipelines.review.matching import check, most_rows
from pipelines.review.pull_request import PullRequest, Run
from pipelines.review.received import Received, claims, take
from pipelines.review.revision import lay_out, read_revision

MOVED = "main's declared files, data or code have changed since this was evaluated: update the branch"


class Found(NamedTuple):
    """The pull request that a run belongs to, its evaluation, and what is to be done."""

    context: Context
    pull_request: PullRequest | None = None
    run: Run | None = None


def find(api: Api, event: Mapping[str, Any], main: str) -> Found:
    """Tell which pull request an event is about, by GitHub's own word, and whether there is something to judge.

    Args:
        api: The repository.
        event: A `workflow_run` event: the evaluation was requested or has ended, or a review was given.
        main: The branch that is judged for.
    """
    run = pull_request.read_run(event.get("workflow_run"))
    if not run.is_evaluation and not run.is_word:
        return Found(Context(state="stale", reason="this run is not the evaluation, whatever it is called"))
    found = pull_request.find(api, run, base=main)
    if found is None or found.state == "closed":
        return Found(Context(state="closed", reason=f"no open pull request to {main} belongs to this run"))
    about = Context(
        state="ready",
        number=found.number,
        head=found.head,
        author=found.author,
        is_fork=found.is_fork,
        is_draft=found.is_draft,
        title=found.title,
        run_url=run.url,
    )
    if not run.is_evaluation:
        finished = pull_request.last_evaluation(api, found, run)
        if finished is None:
            return Found(_now(about, "stale", "the evaluation of this commit has not ended; it will ask again"), found)
        run = finished
    elif found.head != run.head:
        return Found(_now(about, "stale", "the pull request has moved on from the commit of this run"), found)
    run = pull_request.as_it_is(api, run)
    about = about.model_copy(update={"run_url": run.url})
    return Found(_now(about, *_state(api, run, event)), found, run)


def _state(api: Api, run: Run, event: Mapping[str, Any]) -> tuple[str, str]:
    """Tell what is to be done about a run, and why, from what it is now: events come late and in any order."""
    newer = pull_request.newer_evaluations(api, run)
    if any(one.head == run.head for one in newer):
        return "stale", "a newer run evaluates this commit"
    if "action_required" in (run.status, run.conclusion):
        return "pending", "waits for a maintainer to let it run"
    if run.status != "completed":
        return "pending", "is being evaluated"
    if event.get("action") != "completed":
        return "stale", "this run has ended since; the event of its end is the one that counts"
    if run.conclusion == "cancelled" and newer:
        return "stale", "this run was cancelled for a newer one"
    if run.conclusion != "success":
        return "failed", broken(api, run)
    return "ready", ""


def _now(context: Context, state: str, reason: str) -> Context:
    return Context.model_validate({**context.model_dump(), "state": state, "reason": reason})


def receive(
    api: Api,
    event: Mapping[str, Any],
    artifact: Path | None,
    to: Path,
    root: Path = Path(),
    *,
    teams: Teams | None = None,
) -> Context:
    """Lay out everything a verdict needs in `to`, which is replaced as a whole.

    Args:
        api: The repository.
        event: As for `find`.
        artifact: What the run handed over: a folder or a zip file; None where there is nothing.
        to: The folder.
        root: A clone with main checked out; the pull request is fetched and never checked out.
        teams: Members by team, where they were asked for ahead.

    Returns:
        What is known, which also stands in `context.json`. Whatever is wrong with the pull request or its artifact is
        the state `failed`; `decision.json` then says so.

    Raises:
        ServiceError: GitHub or Git cannot be reached.
    """
    main = pull_request.default_branch(api)
    found = find(api, event, main)
    with replacing_folder(to) as new:
        context = found.context
        if context.state == "ready" and found.pull_request and found.run:
            try:
                ask = partial(lifting.ask, api, found.pull_request, found.run, teams=teams)
                context = _prepare(api, found.pull_request, found.run, context, artifact, new, root, main, ask)
            except (ConfigError, NotEnoughEvidence, OSError) as error:
                for leftover in list(new.iterdir()):
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
                context = _now(context, "failed", str(error).replace(f"{new}/", ""))
        if context.state in ("failed", "nothing"):
            verdict = "error" if context.state == "failed" else "pass"
            about = {"input_digest": context.input_digest, "commit": context.head}
            write_decision(
                new,
                unmeasured(verdict, context.reason),
                Baseline("none", reason="nothing was measured, so nothing is compared"),
                about,
            )
        context.write(new)
    return context


def _prepare(
    api: Api,
    found: PullRequest,
    run: Run,
    context: Context,
    artifact: Path | None,
    to: Path,
    root: Path,
    main: str,
    ask: Callable[..., dict[str, Any]],
) -> Context:
    tip = fetch(root, found, main)
    start = common(root, tip, found.head)
    if start is None:
        raise ConfigError(f"the pull request shares no history with {main}; start its branch there")
    paths = changed_paths(root, start, found.head)
    known = {**context.model_dump(), "tip": tip, "base": start, "merge": found.head}
    fork = ["comes from a fork, whose rows nobody here has computed"] if found.is_fork else []
    if not _needs_evaluation(paths, root):
        return _unevaluated(known, paths, Changes(code=code_changed(paths), origin=tuple(fork)), root, ask)
    if artifact is None:
        raise ConfigError("the run handed nothing over; run it again")
    fork += other_bases(api, found, run, main=main)
    fork += earlier_code(api, found, run, root, tip)
    with tempfile.TemporaryDirectory() as folder:
        staged, before = Path(folder) / "staged", Path(folder) / "before"
        received, tree, base = _take(artifact, staged, root, found, tip, to)
        paths |= changed_paths(root, base, tree)
        lay_out(root, base, before)
        after = read_revision(to)
        if input_digest_at(base, root) != input_digest_at(tip, root):
            fork.append(MOVED)
        changed = changes(read_revision(before), after, paths, origin=fork)
        check(staged / "evaluation", after.params, after.suites)
        shutil.copytree(staged, to, dirs_exist_ok=True)
    # Gates are main's, whatever the pull request and the commit it was evaluated on say.
    gates = git.files_of(root, tip).get("gates.yaml")
    if gates is None or gates.mode == git.LINK:
        raise ConfigError(f"gates.yaml: {main} has none, so nothing can be judged; add it there")
    (to / "gates.yaml").write_bytes(git.text_of(root, gates.oid))
    known |= {"base": base, "merge": tree, "caps": list(changed.caps), "changes": changed.as_json()}
    known |= {"input_digest": input_digest_at(tree, root), "lock": received.lock}
    known |= {"manifest": {name: one.model_dump() for name, one in received.manifest.objects.items()}}
    return Context.model_validate(known | ask(paths=paths, tip=tip, root=root))


def _needs_evaluation(paths: Mapping[str, str], root: Path) -> bool:
    if plan.plan(paths, ()).evaluate:
        return True
    return plan.plan(paths, plan.read_stages(root)).evaluate


def _unevaluated(
    known: dict[str, Any],
    paths: Mapping[str, str],
    changed: Changes,
    root: Path,
    ask: Callable[..., dict[str, Any]],
) -> Context:
    if not changed.caps:
        reason = "only documentation, tests or other files that nothing measures changed"
        return Context.model_validate(known | {"state": "nothing", "reason": reason, "is_evaluated": False})
    known |= {"caps": list(changed.caps), "changes": changed.as_json(), "is_evaluated": False}
    return Context.model_validate(known | ask(paths=paths, tip=known["tip"], root=root))


def _take(
    artifact: Path, staged: Path, root: Path, found: PullRequest, tip: str, to: Path
) -> tuple[Received, str, str]:
    """Take the artifact, and lay the tree out that it must have been computed on; return both and that tree's base."""
    claimed = claims(artifact)
    if claimed.head != found.head:
        raise ConfigError("the artifact was computed on another commit than the pull request's head")
    base = git.commit_of(root, claimed.base)
    if base is None or common(root, base, tip) != base:
        raise ConfigError("the artifact was computed on a commit that main does not have; update the branch")
    try:
        # The merge is ours: a commit that the run names could hold anything.
        tree = git.git(root, "merge-tree", "--write-tree", "--no-messages", base, found.head).decode().split()[0]
    except git.GitFailed:
        raise ConfigError("the pull request does not merge with main; update the branch") from None
    lay_out(root, tree, to)
    after = read_revision(to)
    return take(artifact, staged, most_rows=most_rows(after.params, after.suites)), tree, base
