"""A DVC remote on S3, over HTTP: what was pushed is pulled, altered bytes are refused, a fault is one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).parents[2]
STAGES = """\
stages:
  one:
    cmd: cp in.txt one.txt
    deps: [in.txt]
    outs: [one.txt]
  many:
    cmd: mkdir -p many && cp one.txt many/a.txt && tr a-z A-Z < one.txt > many/b.txt
    deps: [one.txt]
    outs: [many]
"""
TEXT = "the same bytes everywhere\n" * 100


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    found = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def keys(server: ThreadedMotoServer) -> dict[str, str]:
    """What a job is given: the server's address and a key, and nothing of this machine's own."""
    host, port = server.get_host_and_port()
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


@pytest.fixture(scope="module")
def bucket(keys: dict[str, str]) -> Any:
    names = {"aws_access_key_id": keys["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": keys["AWS_SECRET_ACCESS_KEY"]}
    resource = boto3.resource("s3", endpoint_url=keys["AWS_ENDPOINT_URL"], region_name="us-east-1", **names)
    return resource.create_bucket(Bucket="objects")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two small stages, committed; nothing is computed yet."""
    folder = tmp_path_factory.mktemp("project")
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True)
    (folder / "dvc.yaml").write_text(STAGES)
    (folder / "in.txt").write_text(TEXT)
    return folder


def reproduce(
    project: Path, to: Path, keys: dict[str, str], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the script in a copy of the repository that has no cache."""
    shutil.copytree(project, to)
    given = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    given |= keys | {"PYTHONPATH": str(ROOT), "HOME": str(to)} | environment
    command = [sys.executable, "-P", "-m", "scripts.reproduce", *arguments]
    done = subprocess.run(command, cwd=to, env=given, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 5, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.stderr.splitlines()[-1] == "exit code 5"
    return line


@pytest.mark.slow
def test_what_was_pushed_is_pulled_and_altered_bytes_are_refused(
    project: Path, keys: dict[str, str], bucket: Any, tmp_path: Path
) -> None:
    done = reproduce(project, tmp_path / "first", keys, "--push=s3://objects/team")
    assert "2 of 2 stages computed" in done.stdout, done.stdout + done.stderr
    names = {one.key for one in bucket.objects.all()}
    assert {name.split("/")[1] for name in names} == {"files", "runs"}

    done = reproduce(project, tmp_path / "second", keys, "--pull=s3://objects/team", "--push=s3://objects/team/pr/3")
    assert "0 of 2 stages computed" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "second/many/b.txt").read_text() == TEXT.upper()
    again = {one.key for one in bucket.objects.all()} - names
    assert not [name for name in again if "/files/" in name], "what main's remote holds is not pushed a second time"

    victim = max((one for one in bucket.objects.all() if "/files/" in one.key), key=lambda one: one.size)
    victim.put(Body=b"X" + victim.get()["Body"].read()[1:])
    line = complaint(reproduce(project, tmp_path / "third", keys, "--pull=s3://objects/team"))
    assert "the DVC remote returned altered bytes; nothing of it was taken" in line
    kept = list((tmp_path / "third/.dvc/cache/files").rglob("*"))
    assert not [path for path in kept if path.is_file() and path.read_bytes().startswith(b"X")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "given", "said"),
    [
        ("s3://objectz/team", {}, "the DVC remote is not there (no such bucket); create it"),
        ("s3://objects/team", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}, "cannot be read"),
    ],
    ids=["no bucket", "no server"],
)
def test_a_remote_that_is_not_there_is_one_line_and_computes_nothing(
    project: Path, keys: dict[str, str], bucket: Any, tmp_path: Path, url: str, given: dict[str, str], said: str
) -> None:
    done = reproduce(project, tmp_path / "copy", keys, f"--pull={url}", **given)
    line = complaint(done)
    assert url in line
    assert said in line
    assert not (tmp_path / "copy/one.txt").exists()
