"""Fetch what a candidate is compared with: rows and declared files of a commit, through Git and DVC.

Which rows belong to a commit says the record of its decision, and where there is none the `dvc.lock` in the commit.

"Nothing was ever released" (state `none`) and "it exists and could not be had" (`unavailable`) are two answers: the
first leaves regression rules out, the second asks a person.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import yaml

from pipelines.core.errors import ConfigError, GatehouseError, one_line
from pipelines.core.files import read_json, sha256, write_json
from pipelines.core.folders import replacing_folder
from pipelines.core.git import GitFailed, credentials, git
from pipelines.core.inputs import input_digest_at
from pipelines.core.objects import Store, kept_by_dvc
from pipelines.core.records import Record, read

RELEASE = re.compile(r"v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
REMOTE_SECONDS = 10
FOLDER = Path("evaluation/baseline")
PARTS = ("rows.parquet", "run.json", "metrics.json")
DECLARED = ("params.yaml", "gates.yaml", "prompts")


class Baseline(NamedTuple):
    """Where the baseline comes from; `baseline.json` holds these keys.

    Attributes:
        state: `none` (nothing was ever released), `fetched`, or `unavailable` (it exists and could not be had).
        ref: Tag or reference that was asked for.
        commit: Commit that it stands for, hex.
        created: Date of that commit, ISO 8601.
        reason: Why there is none, or why it could not be had.
    """

    state: Literal["none", "fetched", "unavailable"]
    ref: str = ""
    commit: str = ""
    created: str = ""
    reason: str = ""


class Unavailable(Exception):
    """Something between here and the baseline's rows failed; the message says what, in one line."""


def fetch_baseline(asked: str, root: Path = Path(), *, repository: Path | None = None) -> Baseline:
    """Bring the baseline into `evaluation/baseline/`, which is replaced as a whole.

    Args:
        asked: `auto` (the last release that HEAD contains), `none`, or a Git reference.
        root: Folder that holds `evaluation/`.
        repository: Where Git and DVC are asked, by default `root`.

    Returns:
        What was found. Whatever fails between here and the rows is a state with its reason, and no error.
    """
    found, source = Baseline("none", reason="none was asked for"), repository or root
    try:
        if asked != "none":
            found = resolve(asked, source)
        if found.state == "fetched":
            if not _is_here(found, root):
                _fetch(found, source, root / FOLDER)
            return found
    except Unavailable as error:
        found = found._replace(state="unavailable", ref=found.ref or asked, reason=str(error))
    with replacing_folder(root / FOLDER) as new:
        write_json(new / "baseline.json", {"schema_version": 1, **found._asdict()})
    return found


def resolve(asked: str, root: Path = Path()) -> Baseline:
    """Return the commit that `auto` or a reference stands for; nothing is fetched yet.

    Raises:
        Unavailable: This is no repository, its history is cut off, or it does not know the reference.
    """
    if asked != "auto":
        return _at(asked, root)
    _git(root, "rev-parse", "--git-dir")
    if not _succeeds(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"):
        if not _is_unborn(root):
            raise Unavailable("HEAD leads to no commit that Git can read; `git fsck` says what is broken")
        return Baseline("none", reason="nothing was ever released: the repository has no commit yet")
    tags = _git(root, "tag", "--list", "v*", "--merged", "HEAD").split()
    releases = {tag: tuple(map(int, found.groups())) for tag in tags if (found := RELEASE.fullmatch(tag))}
    if releases:
        return _at(max(releases, key=lambda tag: releases[tag]), root, prefix="refs/tags/")
    if _git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise Unavailable("the clone is shallow and has no release tag; fetch the whole history (fetch-depth: 0)")
    _ask_remote(root)
    return Baseline("none", reason="nothing was ever released: no tag like v1.0.0 leads to HEAD")


def _is_unborn(root: Path) -> bool:
    """Tell whether HEAD names a branch that does not exist yet, as before the first commit."""
    try:
        branch = git(root, "symbolic-ref", "--quiet", "HEAD").decode(errors="replace").strip()
    except GitFailed:  # a commit, which cannot be read
        return False
    place = root / _git(root, "rev-parse", "--git-path", branch).strip()
    return not place.is_file() and not _git(root, "for-each-ref", "--format=%(refname)", branch).strip()


def _ask_remote(root: Path) -> None:
    """Make sure that a clone without a release tag does not merely lack those of its remote.

    A remote that cannot be reached is taken not to have any: a clone brings them along, unless it was told not to.

    Raises:
        Unavailable: The remote has release tags that are not here, or might have.
    """
    remotes = _git(root, "remote").split()
    if not remotes:
        return
    remote = "origin" if "origin" in remotes else remotes[0]
    words = ("ls-remote", "--tags", "--refs", "--", remote)
    try:
        said = git(root, *words, environment=credentials(root, remote), seconds=REMOTE_SECONDS).decode(errors="replace")
    except GitFailed as error:
        if "--no-tags" not in _option(root, f"remote.{remote}.tagOpt"):
            return
        raise Unavailable(f"the clone was made without tags, and its remote cannot be asked ({error})") from None
    there = {line.split("\t")[1].removeprefix("refs/tags/") for line in said.splitlines() if "\t" in line}
    lacking = {tag for tag in there if RELEASE.fullmatch(tag)} - set(_git(root, "tag", "--list").split())
    if lacking:
        raise Unavailable(
            f"'{remote}' has release tags that are not here ({min(lacking)}); run `git fetch --tags {remote}`"
        )


def _option(root: Path, name: str) -> str:
    try:
        return git(root, "config", "--get", name).decode(errors="replace")
    except GitFailed:  # it is not set
        return ""


def _at(ref: str, root: Path, *, prefix: str = "") -> Baseline:
    line = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{prefix}{ref}^{{commit}}").split()
    if not line:
        raise Unavailable(f"Git knows no commit '{ref}' here; fetch it or correct the name")
    date = _git(root, "show", "--no-patch", "--format=%cI", line[0]).strip()
    return Baseline("fetched", ref, line[0], date)


def _git(root: Path, *arguments: str) -> str:
    try:
        return git(root, *arguments).decode(errors="replace")
    except GitFailed as error:
        if arguments[:2] == ("rev-parse", "--verify"):
            return ""
        raise Unavailable(str(error)) from None
    except ConfigError:
        raise Unavailable("git is not installed") from None


def _succeeds(root: Path, *arguments: str) -> bool:
    return bool(_git(root, *arguments).strip())


def _is_here(wanted: Baseline, root: Path) -> bool:
    """Tell whether an earlier run has fetched this very commit and nobody has touched it since."""
    folder = root / FOLDER
    try:
        kept = read_json(folder / "baseline.json")
        return (
            kept["state"] == "fetched"
            and kept["commit"] == wanted.commit
            and kept["ref"] == wanted.ref
            and all(sha256(folder / path) == digest for path, digest in kept["files"].items())
        )
    except (ConfigError, OSError, KeyError, TypeError, AttributeError):
        return False


def _fetch(wanted: Baseline, root: Path, folder: Path) -> None:
    record = _record_of(wanted, root)
    lock = record.lock if record else _lock_at(wanted, root)
    rows = _rows_in(lock, f"the record of {wanted.ref}" if record else f"dvc.lock of {wanted.ref}")
    with replacing_folder(folder) as new, _complaining():
        from dvc.api import DVCFileSystem

        files = DVCFileSystem(str(root.resolve()), rev=wanted.commit)
        if record:
            with kept_by_dvc(root) as store:
                for output, md5 in sorted(rows.items()):
                    _take_recorded(store, record, output, md5, new)
        else:
            for output, md5_of_output in sorted(rows.items()):
                for path, md5 in _files_of(files, output, md5_of_output).items():
                    _take(files, path, new / Path(path).parent.name / Path(path).name, md5)
        if not list(new.glob("*/rows.parquet")):
            raise Unavailable(f"{wanted.ref} has no evaluation/<suite>/rows.parquet")
        for path in _declared_at(files):
            _take(files, path, new / "declared" / path, None)
        digests = {str(path.relative_to(new)): sha256(path) for path in sorted(new.rglob("*")) if path.is_file()}
        write_json(new / "baseline.json", {"schema_version": 1, **wanted._asdict(), "files": digests})


def _record_of(wanted: Baseline, root: Path) -> Record | None:
    """Return the record of the decision about that commit's tree, where one that can be trusted has been written."""
    try:
        record = read(input_digest_at(wanted.commit, root), root)
    except GatehouseError as error:
        if _has_lock(wanted, root):  # a laptop without a network
            return None
        raise Unavailable(f"the record of {wanted.ref} could not be read ({one_line(str(error), 200)})") from None
    return record if record and record.is_trusted and record.lock else None


def _take_recorded(store: Store, record: Record, path: str, md5: str, new: Path) -> None:
    """Copy an output of a recorded decision, each file held against the record's SHA-256."""
    names = [name for name in record.manifest if name == path or name.startswith(f"{path}/")]
    if not names:
        raise Unavailable(f"the record's manifest does not name {path}")
    for name in names:
        if PurePosixPath(name).name not in PARTS or len(PurePosixPath(name).parts) != 3:
            continue
        wanted = record.manifest[name]
        if md5 != wanted.md5 and not md5.endswith(".dir"):
            raise Unavailable(f"{name}: the record's manifest is not what its dvc.lock names")
        target = new / PurePosixPath(name).parent.name / PurePosixPath(name).name
        target.parent.mkdir(parents=True, exist_ok=True)
        store.copy(wanted.md5, target)
        if sha256(target) != wanted.sha256:
            raise Unavailable(f"{name} is not the file that the record names (its SHA-256 differs)")


def _lock_at(wanted: Baseline, root: Path) -> str:
    if not _has_lock(wanted, root):
        raise Unavailable(f"{wanted.ref} has no dvc.lock and no record, so nobody knows which rows belong to it")
    return _git(root, "show", f"{wanted.commit}:dvc.lock")


def _rows_in(lock: str, whose: str) -> dict[str, str]:
    """Return each suite's files or folder, with the MD5 that a `dvc.lock` gives it."""
    try:
        stages = yaml.safe_load(lock)["stages"].values()
        outs = [(str(out["path"]), str(out.get("md5", ""))) for stage in stages for out in stage.get("outs", [])]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise Unavailable(f"{whose} is not one that DVC wrote") from None
    found = {path: md5 for path, md5 in outs if _is_result(PurePosixPath(path), md5)}
    if not found:
        raise Unavailable(f"{whose} names no evaluation/<suite>/rows.parquet")
    return found


def _is_result(path: PurePosixPath, md5: str) -> bool:
    if path.parts[:1] != ("evaluation",) or ".." in path.parts or path.parts[1:2] == ("baseline",):
        return False
    return md5.endswith(".dir") if len(path.parts) == 2 else len(path.parts) == 3 and path.name in PARTS


def _files_of(files: Any, path: str, md5: str) -> dict[str, str]:
    """Return the files of an output with their MD5; a folder's list of files must have the MD5 in `dvc.lock`."""
    if not md5.endswith(".dir"):
        return {path: md5}
    found = {str(name).lstrip("/"): str(files.info(name)["md5"]) for name in files.find(path)}
    listing = [{"md5": found[name], "relpath": name.removeprefix(f"{path}/")} for name in sorted(found)]
    if f"{_md5(json.dumps(listing, sort_keys=True).encode())}.dir" != md5:
        raise Unavailable(f"the list of files in {path} is not the one that dvc.lock names; empty the cache and pull")
    return {name: value for name, value in found.items() if PurePosixPath(name).name in PARTS}


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _has_lock(wanted: Baseline, root: Path) -> bool:
    return bool(_git(root, "ls-tree", "--name-only", wanted.commit, "--", "dvc.lock").strip())


def _declared_at(files: Any) -> list[str]:
    """Return the declared files of that commit, and the raw data files that its params.yaml names."""
    found = [name for name in ("params.yaml", "gates.yaml") if files.isfile(name)]
    if files.isdir("prompts"):
        found += [str(path).lstrip("/") for path in files.find("prompts")]
    if "params.yaml" in found:
        params = yaml.safe_load(files.read_text("params.yaml"))
        datasets = params.get("datasets", {}) if isinstance(params, dict) else {}
        paths = {str(dataset.get("path", "")) for dataset in datasets.values() if isinstance(dataset, dict)}
        found += sorted(path for path in paths if path and ".." not in PurePosixPath(path).parts and files.isfile(path))
    return found


def _take(files: Any, path: str, target: Path, md5: str | None) -> None:
    """Copy one file out of that commit, and compare it with its MD5: DVC itself accepts altered cache objects."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files.get_file(path, str(target))
    if md5 and _md5(target.read_bytes()) != md5:
        raise Unavailable(f"{path} is not the file that dvc.lock names (its MD5 differs); empty the cache and pull")


@contextlib.contextmanager
def _complaining() -> Iterator[None]:
    """Turn whatever DVC, a remote or the disk complains about into one line."""
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:
        # DVC's remotes raise whatever their clients do; none of it may look like "nothing was ever released".
        cause = " ".join(str(error).split())[:300]
        raise Unavailable(f"the rows could not be fetched ({type(error).__name__}: {cause})") from error
