"""Copy objects by their MD5 out of what DVC keeps: this machine's cache, then the remote."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.errors import ServiceError


class Store:
    """The cache and the remote of one repository."""

    def __init__(self, places: list[Any]) -> None:
        """Keep DVC's object databases, the nearest first."""
        self._places = places

    def copy(self, md5: str, target: Path) -> None:
        """Copy one object; an altered one is passed over, since DVC itself accepts it.

        Raises:
            ServiceError: No place holds it as it was.
        """
        for place in self._places:
            path = place.oid_to_path(md5)
            if not place.fs.exists(path):
                continue
            place.fs.get_file(path, str(target))
            with target.open("rb") as stream:
                if hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5:
                    return
        with contextlib.suppress(OSError):
            target.unlink()
        raise ServiceError(f"object {md5} is in no cache or remote, or is altered there; run `dvc push` where it is")


@contextlib.contextmanager
def kept_by_dvc(root: Path) -> Iterator[Store]:
    """Open the cache and the remote of a repository: GATEHOUSE_REMOTE names it, else DVC's default remote is meant."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    url = os.environ.get("GATEHOUSE_REMOTE")
    named = {"core": {"remote": "gatehouse"}, "remote": {"gatehouse": {"url": url}}} if url else None
    with contextlib.closing(Repo(str(root.resolve()), config=named)) as repo:
        places = [repo.cache.local]
        with contextlib.suppress(DvcException):  # no remote is configured
            places.append(repo.cloud.get_remote_odb())
        yield Store(places)
