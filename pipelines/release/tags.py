"""Whether a tag may be released: its form, where it stands, that it never moved, and the decision about its tree."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from pipelines.core import git
from pipelines.core.errors import ConfigError, GateFailed
from pipelines.core.inputs import input_digest_at
from pipelines.core.records import Record
from pipelines.release.signing import Signing, verify_tag
from pipelines.release.version import Version, parse_tag

TAGGER = re.compile(rb"^tagger .*> ([0-9]{1,12}) [-+][0-9]{4}$", re.MULTILINE)


class Tagged(NamedTuple):
    """A tag that may be released.

    Attributes:
        version: What it names.
        tag_object: The annotated tag itself, hex.
        commit: What it stands on, hex.
        created: When it was made, ISO 8601.
        input_digest: Of the commit's tree.
        record: The decision about that tree.
    """

    version: Version
    tag_object: str
    commit: str
    created: str
    input_digest: str
    record: Record


class Around(NamedTuple):
    """What a tag is held against.

    Attributes:
        tip: Newest commit of the branch, hex.
        newest: The highest version that ever became stable, or None.
        may_return: Whether this very version may be released again, since it was rolled back and its hold was lifted.
        known: Tag names and objects that histories recorded.
        signing: What is declared about signatures.
        record_of: Reads the record of an input digest.
        remote: Name of the remote that has the last word on tags, or None.
    """

    tip: str
    newest: Version | None
    may_return: bool
    known: Iterable[tuple[str, str]]
    signing: Signing
    record_of: Callable[[str], Record | None]
    remote: str | None


def verify(root: Path, tag: str, around: Around) -> Tagged:
    """Hold a tag against everything that a release asks of it.

    Raises:
        ConfigError: It is no version, does not exist, or is not annotated.
        GateFailed: It may not be released: unsigned, moved, off the branch, older, or without a passing decision.
        ServiceError: The remote cannot be reached.
    """
    version = parse_tag(tag)
    tag_object = object_of(root, tag, around.remote)
    if git.git(root, "cat-file", "-t", tag_object).decode().strip() != "tag":
        raise ConfigError(f"tag {tag}: is lightweight; make it anew with `git tag -a {tag}` and push it")
    text = git.git(root, "cat-file", "tag", tag_object)
    if f"\ntag {tag}\n".encode() not in text.split(b"\n\n")[0] + b"\n":
        raise GateFailed(f"tag {tag}: the tag object was made under another name; make it anew with `git tag -a {tag}`")
    check_unmoved(tag, tag_object, around.known)
    verify_tag(root, tag_object, around.signing, tag)
    commit = git.commit_of(root, tag_object)
    if commit is None:
        raise ConfigError(f"tag {tag}: does not stand on a commit; make it anew")
    check_commit(root, commit, version, around, shown=f"tag {tag}")
    input_digest, record = decision_of(root, commit, around.record_of, shown=f"tag {tag}")
    return Tagged(version, tag_object, commit, created_of(root, tag_object), input_digest, record)


def object_of(root: Path, tag: str, remote: str | None) -> str:
    """Return the object that a tag names: on the remote, where there is one, which a local tag must agree with.

    Raises:
        ConfigError: There is no such tag.
        GateFailed: It names one object here and another there.
        ServiceError: The remote cannot be reached.
    """
    name = f"refs/tags/{tag}"
    here = git.git(root, "for-each-ref", "--format=%(objectname)", name).decode().strip()
    if remote is None:
        if not here:
            raise ConfigError(f"tag {tag}: no such tag; make it with `python -m scripts.bump`")
        return here
    access = git.credentials(root, remote)
    lines = git.git(root, "ls-remote", "--end-of-options", remote, name, environment=access).decode().splitlines()
    listed = [oid for oid, _, there in (line.partition("\t") for line in lines) if there == name]
    if not listed:
        raise ConfigError(f"tag {tag}: no such tag on {remote}; push it with `git push {remote} {tag}`")
    if here and here != listed[0]:
        raise GateFailed(f"tag {tag}: names {here[:12]} here and {listed[0][:12]} on {remote}; a tag never moves")
    if not here:
        git.fetch_untrusted(root, name, remote)
    return listed[0]


def check_unmoved(tag: str, tag_object: str, known: Iterable[tuple[str, str]]) -> None:
    """Refuse a tag that an earlier release saw elsewhere.

    Raises:
        GateFailed: It was moved.
    """
    for name, earlier in known:
        if name == tag and earlier != tag_object:
            raise GateFailed(
                f"tag {tag}: was moved, it named {earlier[:12]} and names {tag_object[:12]}; release a new version"
            )


def check_commit(root: Path, commit: str, version: Version, around: Around, *, shown: str) -> None:
    """Refuse a commit that is not on the branch, and a version that is not newer than every released one.

    Raises:
        GateFailed: It is one of these.
    """
    try:
        git.git(root, "merge-base", "--is-ancestor", commit, around.tip)
    except git.GitFailed:
        raise GateFailed(f"{shown}: commit {commit[:12]} is not on main; merge it first") from None
    newest = around.newest
    if newest is None or version > newest or (version == newest and around.may_return):
        return
    raise GateFailed(f"{shown}: is not newer than {newest.tag}, which was released; next is {newest.next('patch').tag}")


def decision_of(
    root: Path, commit: str, record_of: Callable[[str], Record | None], *, shown: str
) -> tuple[str, Record]:
    """Return the input digest of a commit's tree and the decision that lets it be released.

    Raises:
        GateFailed: There is none, or it says no.
    """
    input_digest = input_digest_at(commit, root)
    record = record_of(input_digest)
    if record is None:
        raise GateFailed(f"{shown}: nobody has decided about its tree ({input_digest[:12]}); wait for main's run")
    is_approved = record.verdict == "manual_review" and record.approval is not None
    if record.verdict != "pass" and not is_approved:
        lacking = " without an approval" if record.verdict == "manual_review" else ""
        raise GateFailed(f"{shown}: the decision about its tree is {record.verdict}{lacking}; release another commit")
    if not record.is_trusted:
        raise GateFailed(f"{shown}: only its pull request has decided about its tree; wait for main's run")
    return input_digest, record


def created_of(root: Path, tag_object: str) -> str:
    """Return when an annotated tag was made, ISO 8601, from the object alone."""
    found = TAGGER.search(git.git(root, "cat-file", "tag", tag_object).split(b"\n\n")[0])
    moment = datetime.datetime.fromtimestamp(int(found[1]) if found else 0, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
