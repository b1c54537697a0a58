"""Kill a run at a point of its way to the outside: before or after any change to Git, a file or the scripted world."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.core import git
from pipelines.release import machine
from pipelines.release import world as worlds
from tests.release.scripted import File

KILLED = 137
INERT = {"hash-object", "read-tree", "write-tree", "commit-tree"}  # objects that nothing names yet
MOVING = {"push", "update-ref", "update-index"}  # what others can see: also killed just before


class Points:
    """Counts the points since the last look, each with a name that the same point of another run has too."""

    def __init__(self, kill: Callable[[str], bool], *, is_inert: bool) -> None:
        self.kill, self.where, self.passed = kill, "", dict[str, int]()
        self.words = MOVING | {"fetch"} | (INERT if is_inert else set())

    def point(self, name: str) -> None:
        self.passed[name] = self.passed.get(name, 0) + 1
        if self.kill(f"{self.where}:{name}#{self.passed[name]}"):
            os._exit(KILLED)

    def arm(self) -> None:
        """Put the points around everything that changes something; only ever called in a child process."""
        run, save, look = git.git, File.save, worlds.look

        def git_with_points(root: Path, *arguments: str, **options: Any) -> bytes:
            word = arguments[0]
            if word == "update-index" and "environment" in options:
                word = "read-tree"  # an index of the commit's own is as inert
            if word in MOVING:
                self.point(f"before {word}")
            said = run(root, *arguments, **options)
            if word in self.words:
                self.point(f"after {word}")
            return said

        def save_with_points(file: File, value: dict[str, Any]) -> None:
            save(file, value)
            self.point("after world")

        def look_with_points(world: worlds.World) -> worlds.Seen:
            seen = look(world)
            events = len(seen.history.events) if seen.history else 0
            self.where, self.passed = f"{seen.state.rollout_id}/{events}/{seen.state.step}", {}
            return seen

        git.git = git_with_points  # type: ignore[assignment]
        File.save = save_with_points  # type: ignore[method-assign, assignment]
        machine.look = look_with_points  # type: ignore[attr-defined]


def in_child(act: Callable[[], Any], kill: Callable[[str], bool], *, is_inert: bool = False) -> int:
    """Run `act` in a process of its own that dies where `kill` says so; return its exit status.

    Args:
        act: What is run.
        kill: Whether to die at a point of this name.
        is_inert: Die between the objects of a commit too, which nothing names yet.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            Points(kill, is_inert=is_inert).arm()
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
