"""Release what a folder holds on the machine where it lies: no pull request, no runner, no remote."""

from __future__ import annotations

from pathlib import Path

from pipelines.core import git
from pipelines.core.commit import head
from pipelines.core.errors import ConfigError, GateFailed
from pipelines.core.inputs import input_digest, input_digest_at, input_digests_at
from pipelines.core.records import Record
from pipelines.release import manifest
from pipelines.release.bump import bump
from pipelines.release.store import BRANCH
from pipelines.release.version import TAG, Part, Version, parse_tag
from pipelines.release.words import words_of
from pipelines.release.world import Seen, World, histories
from pipelines.review.conclusion import conclude
from pipelines.review.handover import objects


def check_folder(root: Path) -> None:
    """Refuse a folder whose state cannot be told by a commit of the branch.

    Raises:
        ConfigError: Another branch is checked out, or what is measured has changes that are not committed.
    """
    try:
        branch = git.git(root, "symbolic-ref", "--quiet", "--short", "HEAD").decode(errors="replace").strip()
    except git.GitFailed:
        branch = "no branch"
    if branch != BRANCH:
        raise ConfigError(f"{branch} is checked out; a release is made from {BRANCH}: `git switch {BRANCH}` first")
    if head(root)[0] == "unknown":
        raise ConfigError("there is no commit yet; commit what is to be released")
    if input_digest(root) == input_digest_at("HEAD", root):
        return
    said = git.git(root, "status", "--porcelain", "--untracked-files=all", "-z").decode(errors="replace")
    changed = [line[3:] for line in said.split("\0") if line[3:] and "release.yaml" not in line]
    shown = ", ".join(changed[:3]) or "what is measured"
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    raise ConfigError(f"{shown}{more}: not as committed; commit it, because a release is a commit")


def decided(world: World) -> Record | None:
    """Return the decision that lets the commit that is checked out be released, or None where there is none yet."""
    record = world.record_of(input_digest_at("HEAD", world.root))
    return record if record is not None and record.verdict == "pass" and manifest.models_of(record) else None


def record_decision(root: Path) -> None:
    """Write down in Git what the main job has decided in this folder, with the digest of every file that it made.

    Raises:
        ConfigError: There is no decision, or an output is not what `dvc.lock` names.
    """
    conclude(None, root, root, remote=None, objects=objects(root, (root / "dvc.lock").read_text(encoding="utf-8")))


def images_of(seen: Seen, known: list[dict[str, str]]) -> dict[str, str]:
    """Return the images of the release that is on its way, so that it goes on as it began.

    Args:
        seen: The state; something is on its way.
        known: Every set of images that may be.
    """
    world, candidate = seen.world, seen.candidate
    if candidate.manifest:
        return dict(seen.manifest(candidate).images)
    record = world.record_of(candidate.input_digest)
    if record is None:
        return known[0]
    found = input_digests_at(candidate.commit, world.root)
    same = [one for one in known if manifest.content_digest(found, record, one) == candidate.content_digest]
    return same[0] if same else known[0]


def tag(seen: Seen, record: Record) -> str:
    """Return the tag of the release: one that an earlier call made for this commit, else the next version.

    Raises:
        GateFailed: This very content was rolled back and is held.
        ConfigError: Git cannot tag.
    """
    world, state = seen.world, seen.state
    content = manifest.content_digest(input_digests_at("HEAD", world.root), record, world.images)
    for held in state.held:
        if held.content_digest == content:
            raise GateFailed(
                f"this is what {held.tag} was when it was rolled back at {held.at} ({held.why}); change something, or "
                f"lift that with `{words_of(world).let_go.format(held.tag)}`"
            )
    known = [parse_tag(name) for name in _tags(world.root)]
    if unused := _unused(seen, known):
        return unused.tag
    part: Part = "patch" if known or state.newest else "minor"
    return bump(world.store, part, world.record_of, environment=world.environment).tag


def _unused(seen: Seen, known: list[Version]) -> Version | None:
    """Return the newest version, if it names this commit and no release of it was ever begun."""
    root, newest = seen.world.root, seen.state.newest
    if not known or (newest and max(known) <= parse_tag(f"v{newest}")):
        return None
    last = max(known)
    told = {one.tag for one in histories(seen.world, seen.tip)}
    kind = git.git(root, "cat-file", "-t", f"refs/tags/{last.tag}").decode().strip()
    is_here = git.commit_of(root, f"refs/tags/{last.tag}") == head(root)[0]
    return last if is_here and kind == "tag" and last.tag not in told else None


def _tags(root: Path) -> list[str]:
    names = git.git(root, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags").decode(errors="replace").split()
    return [name for name in names if TAG.fullmatch(name)]
