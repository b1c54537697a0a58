"""Run the stages with a remote behind DVC's cache: take what is there, compute the rest, leave the results there."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.errors import ConfigError, GatehouseError, one_line
from pipelines.core.files import canonical_json, read_json
from pipelines.core.stages import Outcome, reproduce
from pipelines.review.outputs import cached_paths, hashes
from pipelines.review.remote import Remote

CONNECTIONS = 8


def run_stages(
    root: Path = Path(), *, targets: Sequence[str] = (), pull: Sequence[str] = (), push: str | None = None
) -> Outcome:
    """Bring stages up to date with what remotes hold, and push what came out.

    Args:
        root: The repository.
        targets: Stages to end with; by default all.
        pull: URLs of remotes to take from, the first that has an object wins.
        push: URL of the remote that gets every output and the run-cache entries that belong to them. What it holds
            already is taken from it, after `pull`.

    Raises:
        ServiceError: A remote is down, full, or returned altered bytes. Nothing of it is in the cache.
        ConfigError: DVC cannot start or use such a URL.
        Stopped: A stage failed.
    """
    sources: list[Remote] = []

    def before(repo: Any) -> None:
        urls = dict.fromkeys(url.rstrip("/") for url in (*pull, *([push] if push else [])))
        sources.extend(Remote(url, repo.config) for url in urls)
        attach(repo, sources)

    outcome = reproduce(root, targets, before=before)
    if push:
        with opened(root) as repo:
            target = next(one for one in sources if one.url == push.rstrip("/"))
            send_outputs(repo, target, [one for one in sources if one is not target])
    return outcome


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Any]:
    """Open DVC's repository object, its errors in one line each.

    Raises:
        ConfigError: It is no repository, or `dvc.yaml` or `dvc.lock` cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with contextlib.closing(Repo(str(root))) as repo:
            yield repo
    except DvcException as error:
        raise ConfigError(f"dvc: {one_line(' '.join(str(error).split()), 400)}") from None


def attach(repo: Any, remotes: Sequence[Remote]) -> None:
    """Have DVC take run-cache entries and objects from `remotes`, each held against its hash."""
    from dvc.exceptions import DvcException

    faults: list[GatehouseError] = []
    dvc_restore = repo.stage_cache.restore

    def pull(hashes: Iterable[Any], **_: Any) -> None:
        try:
            fetch_all(repo, remotes, hashes)
        except GatehouseError as error:
            faults.append(error)
            raise

    def restore(stage: Any, **options: Any) -> None:
        try:
            dvc_restore(stage, **options, pull=True)
        except DvcException:
            if not faults:
                raise
        if faults:  # DVC suppresses any error about a folder's list, and would compute the stage
            raise faults[0]

    for remote in remotes:
        _take_runs(repo, remote)
    repo.cloud.pull, repo.stage_cache.restore = pull, restore
    for stage in repo.index.stages:  # data that DVC keeps outside of Git
        if stage.is_data_source and not all(out.exists for out in stage.outs):
            fetch_all(repo, remotes, [out.hash_info for out in stage.outs])
            repo.checkout(targets=[stage.path_in_repo], force=True)


def _take_runs(repo: Any, remote: Remote) -> None:
    """Copy the run-cache entries that are not here yet."""
    from dvc.stage.cache import _get_cache_hash

    here = Path(repo.cache.legacy.path)
    wanted = [name for name in sorted(remote.runs()) if not (here / name).exists()]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for name, data in zip(wanted, pool.map(remote.read_run, wanted), strict=True):
            try:
                entry = yaml.safe_load(data)
                is_whole = isinstance(entry, dict) and _get_cache_hash(entry) == name.rpartition("/")[2]
            except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, RecursionError):
                is_whole = False
            if not is_whole:
                raise remote.altered(name)
            _place(here / name, data)


def _place(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")  # no fsync: a broken entry is told by its hash
    beside.write_bytes(data)
    beside.replace(path)


def fetch_all(repo: Any, remotes: Sequence[Remote], wanted: Iterable[Any]) -> None:
    """Bring objects into the local cache, a folder's files with it. What no remote has is left out.

    Args:
        repo: DVC's repository object.
        remotes: Where to look, in this order.
        wanted: DVC's `HashInfo` of each output.

    Raises:
        ServiceError: A remote is down or returned altered bytes.
    """
    cache = repo.cache.local
    for info in wanted:
        names = {info.value: info.obj_name or info.value}
        if info.value and info.isdir and fetch_one(cache, remotes, info.value, f"list of {info.obj_name}"):
            folder = Path(cache.oid_to_path(info.value))
            names = {entry["md5"]: f"{info.obj_name}/{entry['relpath']}" for entry in read_json(folder)}
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda pair: fetch_one(cache, remotes, *pair), names.items()))


def fetch_one(cache: Any, remotes: Sequence[Remote], md5: str, what: str) -> bool:
    """Bring one object into the local cache unless it is there; tell whether it now is."""
    path = Path(cache.oid_to_path(md5))
    if path.exists():
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    for remote in remotes:
        if remote.fetch(md5, beside, what=what) is not None:
            adopt(cache, beside, path)
            return True
    return False


def adopt(cache: Any, beside: Path, path: Path) -> None:
    """Make a checked file an object of the local cache."""
    beside.replace(path)
    cache.protect(str(path))


def send_outputs(repo: Any, remote: Remote, others: Sequence[Remote] = ()) -> int:
    """Push every output of `dvc.lock`, and then the run-cache entries that lead to them.

    Args:
        repo: DVC's repository object.
        remote: Where to.
        others: What one of these has is not pushed a second time.

    Returns:
        How many objects were copied.

    Raises:
        ServiceError: The remote is down or full; what was pushed before is whole.
    """
    lock = Path(repo.root_dir) / "dvc.lock"
    text = lock.read_text(encoding="utf-8") if lock.exists() else "stages: {}"
    cache, cached, wanted = repo.cache.local, cached_paths(repo), dict[str, str]()
    for path, md5 in hashes(text).items():
        if path in cached and Path(cache.oid_to_path(md5)).exists():
            if md5.endswith(".dir"):
                entries = read_json(Path(cache.oid_to_path(md5)))
                wanted |= {entry["md5"]: f"{path}/{entry['relpath']}" for entry in entries}
            wanted[md5] = path  # after its files: whoever finds the list finds them all
    missing = [md5 for md5 in wanted if not any(one.has(md5) for one in (*others, remote))]
    for md5 in sorted(missing, key=lambda name: name.endswith(".dir")):
        remote.send(Path(cache.oid_to_path(md5)), md5, what=wanted[md5])
    _send_runs(repo, remote, text)
    return len(missing)


def _send_runs(repo: Any, remote: Remote, lock: str) -> None:
    """Push the run-cache entries of the stages in `dvc.lock`; older ones of this machine stay here."""
    for stage in repo.index.stages:
        if stage.cmd and not stage.changed_stage() and all(out.hash_info for out in stage.outs):
            repo.stage_cache.save(stage)  # stages that were found unchanged have none yet
    current = {canonical_json(stage) for stage in yaml.safe_load(lock)["stages"].values()}
    here, there = Path(repo.cache.legacy.path), remote.runs()
    for path in sorted((here / "runs").glob("??/*/*")):
        name = path.relative_to(here).as_posix()
        if name not in there and not path.name.startswith(".") and _content(path) in current:
            remote.send_run(path, name)


def _content(path: Path) -> str:
    try:
        return canonical_json(yaml.safe_load(path.read_bytes()))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError):
        return ""
