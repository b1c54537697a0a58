"""Ask Git for objects, so that a commit can be read without ever being checked out."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import ConfigError, ServiceError, one_line

LINK, MODULE = "120000", "160000"  # modes of a symbolic link and of a submodule
SECONDS = 300
UNSOUND = re.compile(r"\bfsck error\b|\bobject [0-9a-f]{40,64}: [A-Za-z]+:")  # Git's own words for a malformed object


class GitFailed(ServiceError):
    """Git ended with an error; the message is its own first line."""


class Entry(NamedTuple):
    """One file of a tree.

    Attributes:
        mode: As Git writes it: 100644, 100755, 120000 (a link) or 160000 (a submodule).
        oid: Name of its object, hex.
        size: Bytes; 0 for a submodule.
    """

    mode: str
    oid: str
    size: int


def git(
    root: Path,
    *arguments: str,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    seconds: int = SECONDS,
) -> bytes:
    """Run Git and return what it prints.

    Args:
        root: Folder inside the repository.
        arguments: Words after `git`.
        stdin: What Git reads.
        environment: Variables on top of this process's own.
        seconds: Longest time it may take.

    Raises:
        ConfigError: Git is not installed.
        GitFailed: It ended with an error, or took too long.
    """
    variables = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **(environment or {})}
    command = arguments[2 if arguments[0] == "-c" else 0]
    try:
        return subprocess.run(
            ["git", *arguments], cwd=root, env=variables, input=stdin, capture_output=True, check=True, timeout=seconds
        ).stdout
    except FileNotFoundError:
        raise ConfigError("git is not installed; install it") from None
    except subprocess.TimeoutExpired:
        raise GitFailed(f"git {command} took more than {seconds} s; try again later") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        cause = next((line for line in said if line.startswith(("fatal:", "error:", " ! "))), (said or [""])[0])
        raise GitFailed(f"git {command}: {one_line(cause.strip(), 300) or error.returncode}") from None


def is_repository(root: Path) -> bool:
    """Tell whether a folder is inside a Git repository."""
    try:
        git(root, "rev-parse", "--git-dir")
    except (GitFailed, ConfigError, OSError):
        return False
    return True


def commit_of(root: Path, name: str) -> str | None:
    """Return the commit that a name stands for, hex, or None where Git knows none here."""
    try:
        found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except GitFailed:
        return None
    return found.decode().strip() or None


def parents_of_head(root: Path) -> list[str]:
    """Return the parents of the commit that is checked out, which a shallow clone knows as well."""
    try:
        lines = git(root, "cat-file", "commit", "HEAD").decode(errors="replace").split("\n\n")[0].splitlines()
    except GitFailed:
        return []
    return [line.split()[1] for line in lines if line.startswith("parent ")]


def fetch_untrusted(root: Path, what: str, remote: str = "origin") -> None:
    """Bring what anybody may have pushed into the object store, if its objects are what Git itself would write.

    Args:
        root: Folder inside the repository.
        what: A reference or a commit of the remote's.
        remote: Its name.

    Raises:
        ConfigError: An object is malformed, such as a tree whose names lead out of it.
        GitFailed: There is no such thing, or the remote cannot be reached.
    """
    words = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--end-of-options", remote, what)
    try:
        git(root, "-c", "fetch.fsckObjects=true", *words, environment=credentials(root, remote))
    except GitFailed as error:
        if UNSOUND.search(str(error)):
            raise ConfigError(f"{error}: it holds an object that Git itself would not write; rebase it") from None
        raise


def files_of(root: Path, tree: str) -> dict[str, Entry]:
    """Return every file of a commit or tree by its path from the top.

    Raises:
        ConfigError: A path leads out of the tree, or stands there twice.
        GitFailed: There is no such tree here.
    """
    listed = git(root, "ls-tree", "-r", "-l", "-z", "--full-tree", "--end-of-options", tree)
    found = {}
    for line in listed.decode(errors="surrogateescape").split("\0"):
        if line:
            about, path = line.split("\t", 1)
            mode, _, oid, size = about.split()
            if path in found:
                raise ConfigError(
                    f"{one_line(path, 200)}: stands in the tree twice; no commit that Git makes does that"
                )
            found[_plain(path)] = Entry(mode, oid, 0 if size == "-" else int(size))
    return found


def changed_between(root: Path, before: str, after: str) -> dict[str, str]:
    """Return every path that differs between two commits or trees, with its mode afterwards, empty where it is gone.

    Raises:
        ConfigError: A path leads out of the tree.
        GitFailed: There is no such tree here.
    """
    said = git(root, "diff-tree", "-r", "-z", "--no-renames", "--end-of-options", before, after)
    words = said.decode(errors="surrogateescape").split("\0")
    found = {}
    for about, path in zip(words[0::2], words[1::2], strict=False):
        mode = about.split()[1]
        found[_plain(path)] = "" if mode == "000000" else mode
    return found


def _plain(path: str) -> str:
    """Return a path of a tree; Git reads trees with names that it would never write, and so may others."""
    if any(part.casefold() in ("", ".", "..", ".git") for part in path.split("/")):
        raise ConfigError(f"{one_line(path, 200)}: is no plain path of a tree; no commit that Git makes has one")
    return path


def contents_of(root: Path, oids: Iterable[str]) -> Iterator[bytes]:
    """Return the bytes of objects, in order; they are held in memory together."""
    wanted = list(oids)
    said = git(root, "cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in wanted).encode())
    at = 0
    for oid in wanted:
        end = said.index(b"\n", at)
        words = said[at:end].split()
        if len(words) != 3:
            raise GitFailed(f"git cat-file: object {oid} is missing; fetch it")
        size = int(words[2])
        yield said[end + 1 : end + 1 + size]
        at = end + size + 2


def text_of(root: Path, oid: str, *, most_bytes: int = 1 << 26) -> bytes:
    """Return the bytes of one object.

    Raises:
        GitFailed: It is missing, or larger than `most_bytes`.
    """
    size = int(git(root, "cat-file", "-s", oid))
    if size > most_bytes:
        raise GitFailed(f"object {oid} has {size:,} bytes, at most {most_bytes:,} are read")
    return git(root, "cat-file", "blob", oid)


def has_remote(root: Path, remote: str) -> bool:
    """Tell whether a remote of this name is configured."""
    try:
        return remote in git(root, "remote").decode().split()
    except GitFailed:
        return False


def credentials(root: Path, remote: str) -> dict[str, str]:
    """Return the variables that let Git speak to GitHub with the job's token, which is never written to a file.

    Without a token, or where the remote lies elsewhere, there are none, and Git uses what it is configured with.
    """
    token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN")
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/") + "/"
    try:
        url = git(root, "remote", "get-url", remote).decode().strip()
    except GitFailed:
        return {}
    if not token or not server.startswith("https://") or not url.startswith(server):
        return {}
    header = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    count = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    key = f"http.{server}.extraheader"
    # The empty value takes back a header that an earlier step has configured: GitHub refuses two.
    return {
        "GIT_CONFIG_COUNT": str(count + 2),
        f"GIT_CONFIG_KEY_{count}": key,
        f"GIT_CONFIG_VALUE_{count}": "",
        f"GIT_CONFIG_KEY_{count + 1}": key,
        f"GIT_CONFIG_VALUE_{count + 1}": f"AUTHORIZATION: basic {header}",
    }
