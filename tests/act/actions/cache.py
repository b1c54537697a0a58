"""Keep caches as GitHub does: written in the scope of the run's own ref, read there and then in main's."""

import os
import shutil
import sys
from pathlib import Path

STORE = Path(os.environ["GATEHOUSE_STORE"]) / "caches"
ASKED = os.environ
PATHS = [line.strip() for line in ASKED["PATHS"].split("\n") if line.strip()]


def folder(ref: str, key: str = "") -> Path:
    return STORE / ref.replace("/", "%") / key


def restore() -> None:
    wanted = [ASKED["KEY"], *(line.strip() for line in ASKED["PREFIXES"].split("\n") if line.strip())]
    for ref in dict.fromkeys([ASKED["GITHUB_REF"], "refs/heads/main"]):
        for prefix in wanted:
            there = [path for path in folder(ref).glob("*") if path.name.startswith(prefix)]
            if there:
                newest = max(there, key=lambda path: path.stat().st_mtime_ns)
                shutil.copytree(newest, ".", dirs_exist_ok=True)
                return answer(newest.name)
    return answer("")


def save() -> None:
    target = folder(ASKED["GITHUB_REF"], ASKED["KEY"])
    if target.exists():
        print("Failed to save: Unable to reserve cache with this key, it already exists.")
        return
    target.mkdir(parents=True)
    for path in PATHS:
        if Path(path).is_dir():
            shutil.copytree(path, target / path, dirs_exist_ok=True)


def answer(found: str) -> None:
    with Path(ASKED["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as stream:
        stream.write(f"cache-hit={str(found == ASKED['KEY']).lower()}\ncache-matched-key={found}\n")


{"restore": restore, "save": save}[sys.argv[1]]()
