"""A DVC remote, a folder or `s3://`, read and written so that a fault is one line and altered bytes are none of ours.

DVC itself logs what a remote refuses or garbles and goes on, so that a broken remote looks like an empty one and
everything is computed anew. Here every object is held against its hash before it enters the cache.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pipelines.core.errors import ConfigError, GatehouseError, ServiceError, one_line

MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
RUN = re.compile(r"runs/([0-9a-f]{2})/(\1[0-9a-f]{62})/([0-9a-f]{64})")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PULL_REQUESTS = re.compile(r"(.+)/pr/[1-9][0-9]*")
PIECE = 1 << 20
# An entry of the run cache is a few kilobytes of YAML; nobody may fill the memory with one.
LARGEST_RUN = 4 << 20


class Remote:
    """Objects and run-cache entries below one URL, in DVC's own layout.

    Args:
        url: A folder, or any URL that DVC can write to.
        config: The repository's DVC settings.

    Raises:
        ConfigError: DVC cannot use such a URL.
        ServiceError: The folder is not there.
    """

    def __init__(self, url: str, config: Any = None) -> None:
        from dvc.fs import get_cloud_fs

        self.url = url.rstrip("/") or "/"
        self.shown = one_line(re.sub(r"//[^/@]*@", "//", self.url), 200)  # no password in a log
        try:
            kind, settings, self.path = get_cloud_fs(config, url=self.url)
            self._fs = kind(**settings)
        except Exception as error:  # whatever a plugin for a kind of URL raises
            cause = one_line(" ".join(str(error).split()), 300)
            raise ConfigError(f"{self.shown}: DVC cannot use this as a remote ({cause})") from None
        if self._fs.protocol == "local":
            self._refuse_absent_folder()
        elif self._fs.protocol in ("http", "https"):
            raise ConfigError(f"{self.shown}: an HTTP server cannot be listed or written; name a folder or s3://")

    def _refuse_absent_folder(self) -> None:
        """Refuse a folder that is not there: likely it is not mounted. A pull request's own may be new."""
        own = PULL_REQUESTS.fullmatch(self.path)
        folder = Path(own[1] if own else self.path)
        if not folder.is_dir():
            raise ServiceError(f"{self.shown}: the DVC remote is not there ({folder} is no folder); mount or create it")

    @contextlib.contextmanager
    def _speaking(self, doing: str) -> Iterator[None]:
        """Turn whatever the remote's client raises into one line; a missing object stays FileNotFoundError."""
        try:
            yield
        except (GatehouseError, FileNotFoundError):
            raise
        except OSError as error:
            if error.errno in FULL:
                raise ServiceError(
                    f"{self.shown}: the DVC remote is full ({error.strerror}); free some space there and run again"
                ) from None
            raise self._unreachable(doing, error) from None
        except Exception as error:  # each kind of remote has errors of its own
            raise self._unreachable(doing, error) from None

    def _unreachable(self, doing: str, error: Exception) -> ServiceError:
        cause = one_line(" ".join(str(error).split()), 200) or type(error).__name__
        return ServiceError(
            f"{self.shown}: the DVC remote cannot be {doing} ({cause}); check that it is up, and the key"
        )

    def _object(self, md5: str) -> str:
        assert MD5.fullmatch(md5)
        return str(self._fs.join(self.path, "files", "md5", md5[:2], md5[2:]))

    def has(self, md5: str) -> bool:
        """Tell whether an object is there.

        Raises:
            ServiceError: The remote cannot be asked.
        """
        with self._speaking("read"):  # not `exists`, which takes whatever goes wrong for an absence
            try:
                self._fs.info(self._object(md5))
            except FileNotFoundError:
                return False
        return True

    def fetch(self, md5: str, target: Path, *, what: str, most_bytes: int | None = None) -> str | None:
        """Copy an object into a new file, and hold it against its MD5.

        Args:
            md5: Its name.
            target: The file to write; removed again unless it is whole.
            what: What people know the object as, for messages.
            most_bytes: Size at which the copy is given up.

        Returns:
            The SHA-256 of what was written; None where the remote has no such object.

        Raises:
            ServiceError: The remote cannot be read, or returned other bytes than the name stands for.
        """
        try:
            with self._speaking("read"):
                source = self._fs.open(self._object(md5), "rb")
            with source, target.open("xb") as sink:
                found, sha256 = self._copy(source, sink, what, most_bytes)
            if found != md5.removesuffix(".dir"):
                raise self.altered(what)
        except FileNotFoundError:
            target.unlink(missing_ok=True)
            return None
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return sha256

    def _copy(self, source: IO[bytes], sink: IO[bytes], what: str, most_bytes: int | None) -> tuple[str, str]:
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        size = 0
        while True:
            with self._speaking("read"):  # only the reading: a full disk here is no fault of the remote
                piece = source.read(PIECE)
            if not piece:
                return md5.hexdigest(), sha256.hexdigest()
            size += len(piece)
            if most_bytes is not None and size > most_bytes:
                raise self.altered(what)
            md5.update(piece)
            sha256.update(piece)
            sink.write(piece)

    def altered(self, what: str) -> ServiceError:
        """Return the error that says of an object, by its path, that the remote does not hold what it should."""
        return ServiceError(
            f"{self.shown}: {one_line(what, 200)}: the DVC remote returned altered bytes; nothing of it was taken. "
            "Delete the object there and push it again from a clone that has it"
        )

    def send(self, source: Path, md5: str, *, what: str) -> None:
        """Copy an object of the local cache to the remote, whole or not at all.

        Raises:
            ServiceError: The remote is full or cannot be written, or the local object is not what its name says.
        """
        state = hashlib.md5(usedforsecurity=False)
        with source.open("rb") as stream:
            while piece := stream.read(PIECE):
                state.update(piece)
        if state.hexdigest() != md5.removesuffix(".dir"):
            raise ServiceError(
                f"{source}: {one_line(what, 200)} is damaged in the local cache; delete it and run again"
            )
        self._put(source, self._object(md5))

    def _put(self, source: Path, target: str) -> None:
        with self._speaking("written"):
            if self._fs.protocol != "local":  # an upload appears when it is whole
                self._fs.makedirs(self._fs.parent(target))
                self._fs.put_file(str(source), target)
                return
            beside = Path(target).with_name(f".{secrets.token_hex(8)}.tmp")
            beside.parent.mkdir(parents=True, exist_ok=True)
            try:
                with source.open("rb") as stream, beside.open("xb") as sink:
                    while piece := stream.read(PIECE):
                        sink.write(piece)
                beside.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    beside.unlink()
                raise

    def runs(self) -> set[str]:
        """Return the names of all run-cache entries, such as `runs/ab/abcd.../0123...`.

        Raises:
            ServiceError: The remote cannot be read.
        """
        with self._speaking("read"):
            folder = self._fs.join(self.path, "runs")
            names = self._walk(folder) if self._fs.protocol == "local" else self._listed(folder)
            found = {PurePosixPath(self._fs.as_posix(self._fs.relpath(name, self.path))).as_posix() for name in names}
        return {name for name in found if RUN.fullmatch(name)}

    def _walk(self, folder: str) -> list[str]:
        def fail(error: OSError) -> None:  # os.walk skips what it cannot read, unless told otherwise
            if not isinstance(error, FileNotFoundError):
                raise error

        return [str(Path(place) / name) for place, _, names in os.walk(folder, onerror=fail) for name in names]

    def _listed(self, folder: str) -> list[str]:
        try:
            self._fs.ls(self.path)  # `find` would take an error for an empty folder
        except FileNotFoundError:
            if self._fs.exists(PurePosixPath(self.path).parts[0]):
                return []  # a new folder of a bucket that is there
            raise ServiceError(f"{self.shown}: the DVC remote is not there (no such bucket); create it") from None
        return list(self._fs.find(folder))

    def read_run(self, name: str) -> bytes:
        """Return the bytes of a run-cache entry.

        Raises:
            ServiceError: The remote cannot be read.
        """
        with self._speaking("read"):
            try:
                with self._fs.open(self._fs.join(self.path, *name.split("/")), "rb") as stream:
                    return bytes(stream.read(LARGEST_RUN))
            except FileNotFoundError:
                raise ServiceError(f"{self.shown}: {name} vanished while it was read; run again") from None

    def send_run(self, source: Path, name: str) -> None:
        """Copy a run-cache entry to the remote.

        Raises:
            ServiceError: The remote is full or cannot be written.
        """
        assert RUN.fullmatch(name)
        self._put(source, str(self._fs.join(self.path, *name.split("/"))))
