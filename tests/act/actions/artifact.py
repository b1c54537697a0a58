"""Keep and give back artifacts as GitHub does: by run and name, hidden files left out unless asked for."""

import fnmatch
import os
import shutil
import sys
from pathlib import Path

STORE = Path(os.environ["GATEHOUSE_STORE"]) / "artifacts"
ASKED = os.environ


def upload() -> None:
    target = STORE / ASKED["RUN"] / ASKED["NAME"]
    if target.exists():
        if ASKED["OVERWRITE"] != "true":
            sys.exit(f"Failed to CreateArtifact: an artifact with the name {ASKED['NAME']!r} already exists")
        shutil.rmtree(target)
    patterns = [line.strip() for line in ASKED["PATHS"].split("\n") if line.strip()]
    found = [path for pattern in patterns for path in sorted(Path.cwd().glob(pattern))]
    inside = [each for path in found for each in ([path] if path.is_file() else sorted(path.rglob("*")))]
    files = [file.relative_to(Path.cwd()) for file in inside if file.is_file()]
    if ASKED["HIDDEN"] != "true":
        files = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    if not files:
        message = f"No files were found with the provided path: {ASKED['PATHS']}"
        print(f"::warning::{message}")
        sys.exit(message if ASKED["IF_NONE"] == "error" else 0)
    is_folder = len(found) == 1 and found[0].is_dir()
    root = found[0] if is_folder else Path(os.path.commonpath([file.absolute().parent for file in files]))
    for file in files:
        place = target / file.absolute().relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)  # a zip keeps no mode, and follows links
    with Path(ASKED["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as stream:
        server, repository, run = (ASKED[name] for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "RUN"))
        number = len(list(STORE.glob("*/*")))
        stream.write(
            f"artifact-id={number}\nartifact-url={server}/{repository}/actions/runs/{run}/artifacts/{number}\n"
        )


def download() -> None:
    if ASKED["RUN"] != ASKED["OWN_RUN"] and not ASKED["TOKEN"]:
        sys.exit("Unable to download artifact(s): another run's artifacts need github-token")
    folder, target = STORE / ASKED["RUN"], Path(ASKED["TARGET"])
    if name := ASKED["NAME"]:
        if not (folder / name).is_dir():
            sys.exit(f"Unable to download artifact(s): Artifact not found for name: {name}")
        shutil.copytree(folder / name, target, dirs_exist_ok=True, symlinks=True)
        return
    for one in sorted(folder.glob("*")):
        if fnmatch.fnmatch(one.name, ASKED["PATTERN"] or "*"):
            place = target if ASKED["MERGE"] == "true" else target / one.name
            shutil.copytree(one, place, dirs_exist_ok=True, symlinks=True)


{"upload": upload, "download": download}[sys.argv[1]]()
