"""Take over what a recorded decision was made on: each file by the SHA-256 that the record names, or not at all."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.core.errors import ServiceError, one_line
from pipelines.core.files import sha256, write_text
from pipelines.core.inputs import input_digest
from pipelines.core.records import Record, read
from pipelines.review.cost import ALWAYS
from pipelines.review.outputs import File, cached_paths, hashes, is_inside, listing
from pipelines.review.remote import MD5, Remote
from pipelines.review.reproduction import CONNECTIONS, adopt, opened


class Absent(ServiceError):
    """No remote holds a file that the decision names; nothing is known to be wrong with the others."""


def take_over(urls: Sequence[str], root: Path = Path(), *, git_remote: str | None = "origin") -> str:
    """Write the `dvc.lock` of this tree's decision and check out its outputs.

    Where nobody has decided, or a file is gone, nothing is done: what is not there is computed.

    Args:
        urls: DVC remotes to look in; below each, the folder of the pull request too.
        root: The repository.
        git_remote: Where the records lie.

    Returns:
        One line that says what was taken, or why nothing was.

    Raises:
        ServiceError: A file is not the one that the record names; the cache and `dvc.lock` are as before.
        ConfigError: The record is broken.
    """
    record = read(input_digest(root), root, git_remote)
    if record is None or not record.lock or not record.is_trusted:
        return "no decision that can be taken over is recorded about this tree"
    with opened(root) as repo:
        number = record.pull_request
        places = [where for url in urls for where in (url, *([f"{url.rstrip('/')}/pr/{number}"] if number else []))]
        remotes = [Remote(place, repo.config) for place in places]
        try:
            taken = _take(repo, record, remotes)
        except Absent as error:
            return f"{error}: nothing taken over, it is computed"
        write_text(root / "dvc.lock", record.lock)
    _check_out(root, taken)
    whose = f"pull request {number}" if number else f"commit {record.commit[:12]}"
    return f"took over {len(taken)} outputs of {whose} (verdict {record.verdict}), each file by its SHA-256"


def _take(repo: Any, record: Record, remotes: Sequence[Remote]) -> list[str]:
    """Bring every file that the record names into the cache once all of them are there and right."""
    files = _files(record)
    cached, known = cached_paths(repo), hashes(record.lock, "the recorded dvc.lock")
    outputs = sorted(path for path in known if path in cached)
    lists: dict[str, bytes] = {}
    for path in outputs:
        if known[path].endswith(".dir"):
            data, md5 = listing(path, files)
            lists[md5] = data
        else:
            md5 = files[path].md5 if path in files else ""
        if md5 != known[path]:
            raise ServiceError(
                f"{one_line(path, 100)}: the record's manifest is not what its dvc.lock names; nothing taken"
            )
    wanted = {name: file for name, file in files.items() if any(_belongs(name, path) for path in outputs)}
    cache = repo.cache.local
    with tempfile.TemporaryDirectory(dir=repo.tmp_dir) as folder:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            fetched = list(pool.map(partial(_fetch, cache, remotes, Path(folder)), wanted.items()))
        found = [one for one in fetched if one is not None]
        if len(found) < len(wanted):  # told only here, so that a file that is altered is told first
            name = next(name for name, one in zip(wanted, fetched, strict=True) if one is None)
            where = ", ".join(remote.shown for remote in remotes)
            raise Absent(f"{one_line(name, 200)}: no remote holds what the decision names ({where})")
        for md5, data in lists.items():
            beside = Path(folder) / secrets.token_hex(8)
            beside.write_bytes(data)
            found.append((md5, beside))
        for md5, copy in found:  # only now, when everything is right
            if copy is not None:
                place = Path(cache.oid_to_path(md5))
                place.parent.mkdir(parents=True, exist_ok=True)
                adopt(cache, copy, place)
    return outputs


def _files(record: Record) -> dict[str, File]:
    for name, file in record.manifest.items():
        if not (is_inside(name) and MD5.fullmatch(file.md5) and file.size >= 0):
            raise ServiceError(f"{one_line(repr(name), 100)}: the record's manifest names no such file; nothing taken")
    return {name: File(file.sha256, file.size, file.md5) for name, file in record.manifest.items()}


def _belongs(name: str, output: str) -> bool:
    return name == output or name.startswith(f"{output}/")


def _fetch(
    cache: Any, remotes: Sequence[Remote], folder: Path, wanted: tuple[str, File]
) -> tuple[str, Path | None] | None:
    """Copy one file into `folder` and hold it against the record; without a path where the cache has it already.

    Returns:
        Its MD5 and the copy; None where nobody has it.
    """
    name, file = wanted
    kept = Path(cache.oid_to_path(file.md5))
    with contextlib.suppress(FileNotFoundError):
        if kept.stat().st_size == file.size and sha256(kept) == file.sha256:
            return file.md5, None
    beside = folder / secrets.token_hex(8)
    for remote in remotes:
        found = remote.fetch(file.md5, beside, what=name, most_bytes=file.size)
        if found is None:
            continue
        if found != file.sha256 or beside.stat().st_size != file.size:
            raise ServiceError(
                f"{remote.shown}: {one_line(name, 200)}: SHA-256 is not the one that the decision names; nothing taken"
            )
        return file.md5, beside
    return None


def _check_out(root: Path, outputs: Sequence[str]) -> None:
    """Put the outputs into the working tree, and refuse a lock that would have any of them computed anew."""
    with opened(root) as repo:
        repo.checkout(targets=list(outputs), force=True)
        stale = {name: why for name, why in repo.status().items() if name != ALWAYS and not _is_of_machine(why, repo)}
    if stale:
        names = one_line(", ".join(sorted(stale)), 200)
        raise ServiceError(f"the recorded dvc.lock does not fit this tree ({names} would be computed anew); delete it")


def _is_of_machine(why: Any, repo: Any) -> bool:
    """Tell whether a stage is out of date only because another kind of machine would measure anew."""
    uncached = {out.def_path for out in repo.index.outs if not out.use_cache}
    parts: list[Mapping[str, Any]] = [part for part in why if isinstance(part, dict)]
    return len(parts) == len(why) and all(
        kind == "changed deps" and set(what) <= uncached for part in parts for kind, what in part.items()
    )
