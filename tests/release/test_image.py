"""`scripts.image`: built, scanned, pushed by digest, signed, in this order, and nothing after the first that fails.

Docker, grype and cosign are stand-ins that note how they were called: none of them can work here. What they are given
is held against what their own --help says.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGEST = f"sha256:{'c' * 64}"
TOOL = """\
#!{python}
import json, os, sys
from pathlib import Path
name = Path(sys.argv[0]).name
with open(os.environ["CALLS"], "a") as stream:
    stream.write(json.dumps([name, *sys.argv[1:], os.environ.get("SOURCE_DATE_EPOCH", "")]) + "\\n")
for argument in sys.argv:
    if argument.startswith("--metadata-file="):
        told = os.environ.get("METADATA", '{{"containerimage.digest": "{digest}"}}')
        Path(argument.partition("=")[2]).write_text(told)
raise SystemExit(int(os.environ.get(name.upper() + "_ENDS", "0")))
"""


class Machine:
    """A machine with these tools on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.calls_path = folder / "calls"
        for name in ("docker", "grype", "cosign"):
            path = self.bin / name
            path.write_text(TOOL.format(python=sys.executable, digest=DIGEST))
            path.chmod(0o755)
        git = shutil.which("git")
        assert git is not None
        (self.bin / "git").symlink_to(git)
        self.identity = {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://example.com"}

    def image(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "scripts.image", *arguments]
        given = {"PATH": str(self.bin), "CALLS": str(self.calls_path), **environment}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=given)
        return done.returncode, done.stdout, done.stderr

    def calls(self) -> list[list[str]]:
        lines = self.calls_path.read_text().splitlines() if self.calls_path.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


NAME = "--name=registry.example/team/gateway"


def test_an_image_is_built_scanned_pushed_by_digest_and_signed(machine: Machine) -> None:
    code, out, _ = machine.image(NAME, "--push=true", **machine.identity)
    assert code == 0
    assert out == f"reference=registry.example/team/gateway@{DIGEST}\ndigest={DIGEST}\n"
    build, scan, sign = machine.calls()
    assert build[:4] == ["docker", "buildx", "build", "--target=gateway"]
    assert {"--provenance=mode=max", "--sbom=true"} <= set(build)
    output = next(word for word in build if word.startswith("--output="))
    assert "push=true" in output
    assert "push-by-digest=true" in output
    assert not any(word.startswith(("--tag", "-t", "--build-arg", "--secret")) for word in build)
    assert int(build[-1]) > 1_500_000_000, "files bear the commit's time"
    assert scan[:3] == ["grype", f"registry:registry.example/team/gateway@{DIGEST}", "--fail-on=high"]
    assert sign[:-1] == ["cosign", "sign", "--yes", "--recursive", f"registry.example/team/gateway@{DIGEST}"]


def test_without_push_nothing_leaves_the_machine(machine: Machine) -> None:
    code, _, _ = machine.image(NAME)
    assert code == 0
    build, scan = machine.calls()
    assert "push" not in " ".join(build)
    assert scan[1].startswith("oci-archive:")


def test_what_fails_the_scan_is_never_signed(machine: Machine) -> None:
    code, out, error = machine.image(NAME, "--push=true", "--scan=critical", GRYPE_ENDS="2", **machine.identity)
    assert (code, out) == (3, "")
    assert "holes of severity critical or worse have a fix" in error
    assert [call[0] for call in machine.calls()] == ["docker", "grype"]


@pytest.mark.parametrize(
    ("environment", "said", "called"),
    [
        ({"DOCKER_ENDS": "1"}, "docker buildx build: ended with 1", ["docker"]),
        ({"METADATA": "{}"}, "docker buildx: named no digest", ["docker"]),
        ({"METADATA": '{"containerimage.digest": "sha256:1"}'}, "docker buildx: named no digest", ["docker"]),
        ({"GRYPE_ENDS": "1"}, "grype registry:", ["docker", "grype"]),
        ({"COSIGN_ENDS": "1"}, "cosign sign --yes: ended with 1", ["docker", "grype", "cosign"]),
    ],
)
def test_a_tool_that_breaks_is_named_and_ends_it(
    machine: Machine, environment: dict[str, str], said: str, called: list[str]
) -> None:
    code, out, error = machine.image(NAME, "--push=true", **machine.identity, **environment)
    assert (code, out) == (5, "")
    assert said in error
    assert "Traceback" not in error
    assert [call[0] for call in machine.calls()] == called


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((NAME, "--push=true"), "give the job `permissions: {id-token: write}`"),
        (("--name=Gateway",), "--name 'Gateway' is no image"),
        (("--name=registry.example/gateway:1",), "--name 'registry.example/gateway:1' is no image"),
        (("--name=registry.example/gateway;id",), "is no image"),
        ((NAME, "--model=base"), "--model is of the target model; gateway holds none"),
        ((NAME, "--target=model", "--model=../keys"), "--model '../keys': models/../keys holds no model"),
        ((NAME, "--target=everything"), "invalid choice"),
        ((), "the following arguments are required: --name"),
    ],
)
def test_a_wrong_order_is_refused_before_anything_is_built(
    machine: Machine, arguments: tuple[str, ...], said: str
) -> None:
    code, _, error = machine.image(*arguments)
    assert code == 2
    assert said in error
    assert machine.calls() == []


@pytest.mark.parametrize("tool", ["docker", "grype", "cosign"])
def test_a_missing_tool_is_named_before_anything_is_built(machine: Machine, tool: str) -> None:
    (machine.bin / tool).unlink()
    code, _, error = machine.image(NAME, "--push=true", **machine.identity)
    assert code == 2
    assert f"{tool}: not found; install" in error
    assert machine.calls() == []
