"""Read and write a release's state on a branch by compare-and-swap: a write counts only if nobody was faster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.core import git
from pipelines.core.commits import OVERTAKEN, check_plain, commit_files
from pipelines.core.errors import ConfigError, ServiceError
from pipelines.release.checkout import settle

BRANCH = "main"
OURS = tuple(f":(glob)k8s/overlays/*/{name}" for name in ("release.yaml", "history/**", "manifests/**"))
"""What a process that died may have left behind the branch in a work tree."""


class Overtaken(Exception):
    """Somebody else has moved the branch since it was read: read again and decide again."""


class Store:
    """The branch that holds the state, on a remote or, where there is none, in this repository."""

    def __init__(self, root: Path, *, branch: str = BRANCH, remote: str | None = "origin") -> None:
        """Keep where the state lies.

        Args:
            root: The repository.
            branch: The branch.
            remote: Where it lies; None, or a remote that is not configured: in this repository.
        """
        self.root, self.branch = root, branch
        self.remote = remote if remote and git.has_remote(root, remote) else None

    def tip(self) -> str:
        """Return the branch's newest commit.

        Raises:
            ConfigError: There is no such branch.
            ServiceError: The remote cannot be reached.
        """
        if self.remote is None:
            found = git.commit_of(self.root, f"refs/heads/{self.branch}")
            if found is not None:
                settle(self.root, self.branch, OURS, is_strict=False)  # what a killed run could not
        else:
            kept = f"refs/remotes/{self.remote}/{self.branch}"
            refspec = f"+refs/heads/{self.branch}:{kept}"
            words = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--end-of-options")
            git.git(self.root, *words, self.remote, refspec, environment=git.credentials(self.root, self.remote))
            found = git.commit_of(self.root, kept)
        if found is None:
            raise ConfigError(f"branch {self.branch}: does not exist here; commit something first")
        return found

    def known(self) -> str | None:
        """Return the branch's commit as it was read last, by whomever; nobody is asked."""
        return git.commit_of(self.root, f"refs/{f'remotes/{self.remote}' if self.remote else 'heads'}/{self.branch}")

    def read(self, tip: str, path: str) -> bytes | None:
        """Return a file of a commit, or None where it has none."""
        return self.read_each(tip, path)[0]

    def read_each(self, tip: str, *paths: str) -> list[bytes | None]:
        """Return files of a commit in order; None for each that it does not have."""
        said = git.git(self.root, "cat-file", "--batch", stdin="".join(f"{tip}:{path}\n" for path in paths).encode())
        found: list[bytes | None] = []
        at = 0
        for _ in paths:
            end = said.index(b"\n", at)
            words = said[at:end].split()
            size = int(words[2]) if len(words) == 3 and words[1] == b"blob" else -1
            found.append(said[end + 1 : end + 1 + size] if size >= 0 else None)
            at = end + (size + 2 if size >= 0 else 1)
        return found

    def read_all(self, tip: str, path: str) -> dict[str, bytes]:
        """Return every file below a folder of a commit, by path."""
        said = git.git(self.root, "ls-tree", "-r", "-z", "--full-tree", "--end-of-options", tip, path)
        oids = {}
        for line in said.decode(errors="surrogateescape").split("\0"):
            if line:
                about, name = line.split("\t", 1)
                oids[name] = about.split()[2]
        return dict(zip(oids, git.contents_of(self.root, oids.values()), strict=True)) if oids else {}

    def write(self, tip: str, files: Mapping[str, bytes], message: str) -> str:
        """Add or replace files on top of `tip`, and move the branch there if it is still at `tip`; never by force.

        Args:
            tip: What was read.
            files: Content by path.
            message: The commit's.

        Returns:
            The branch's new commit.

        Raises:
            Overtaken: The branch is elsewhere by now.
            ConfigError: One of these very files has changes in the work tree that are not committed.
            ServiceError: The remote cannot be reached or refuses. Whether the commit arrived shows the next read.
        """
        for path in files:
            check_plain(path)
        if self.remote is None:
            settle(self.root, self.branch, files)
        commit = commit_files(self.root, tip, files, message)
        if commit == tip:
            return tip
        try:
            self._move(tip, commit)
        except git.GitFailed as error:
            if OVERTAKEN.search(str(error)):
                raise Overtaken from None
            if self._arrived(commit):
                return commit
            raise
        if self.remote is None:
            settle(self.root, self.branch, files)
        return commit

    def _move(self, tip: str, commit: str) -> None:
        reference = f"refs/heads/{self.branch}"
        if self.remote is None:
            git.git(self.root, "update-ref", reference, commit, tip)
            return
        access = git.credentials(self.root, self.remote) | {"LC_ALL": "C"}
        # A plain push moves the branch only forward, which is the comparison: our commit stands on what we read.
        words = ("push", "--quiet", "--no-verify", "--end-of-options", self.remote, f"{commit}:{reference}")
        git.git(self.root, *words, environment=access)

    def _arrived(self, commit: str) -> bool:
        """Tell whether a push whose answer was lost has moved the branch after all."""
        try:
            git.git(self.root, "merge-base", "--is-ancestor", commit, self.tip())
        except ServiceError:
            return False
        return True
