"""The Dockerfile: linted, pinned, without secrets, and its gateway stage carried out until the gateway answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.dockerfile import ROOT, carry_out, copy, ignored, in_folder, stages
from tests.serving.gateway import KEY, Running
from tests.serving.upstreams import Upstreams

TEXT = (ROOT / "Dockerfile").read_text()
CPU = (ROOT / "locks/cpu.txt").read_text()
GATEWAY = (ROOT / "locks/gateway.txt").read_text()


def locked(text: str) -> set[str]:
    return {line.removesuffix(" \\") for line in text.splitlines() if re.match(r"[a-z0-9]", line)}


def test_hadolint_has_nothing_to_say() -> None:
    command = [str(Path(sys.executable).parent / "hadolint"), "--format", "tty", "Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_whatever_comes_from_elsewhere_is_named_by_digest() -> None:
    known = set(stages())
    bases = [stage.base for stage in stages().values() if stage.base not in known and stage.base != "scratch"]
    for name in [*bases, re.findall(r"^# syntax=(.+)$", TEXT, re.MULTILINE)[0]]:
        assert re.fullmatch(r"[a-z0-9./-]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}", name), name


def test_no_secret_and_no_cache_stays_in_a_layer() -> None:
    assert "secret" not in TEXT
    assert not re.search(r"^ARG .*(KEY|TOKEN|PASSWORD)", TEXT, re.MULTILINE)
    for stage in stages().values():
        for word, rest in stage.steps:
            assert word != "ADD"
            if word == "RUN" and "pip install" in rest:
                assert "--mount=type=cache" in rest
                assert "--require-hashes" in rest
    for name in (".git", ".gatehouse", ".env", ".cache", "data", "k8s", "pipelines/__pycache__"):
        assert ignored(ROOT / name), name


def test_images_that_run_do_so_as_a_number_that_is_not_root() -> None:
    for name in ("gateway", "pipelines"):
        assert ("USER", "10001:10001") in stages()[name].steps, "a name could not be held against runAsNonRoot"
        steps = [word for word, _ in stages()[name].steps]
        assert "RUN" not in steps[steps.index("USER") :]
        assert "COPY" not in steps[steps.index("USER") :]
    assert {word for word, _ in stages()["model"].steps} == {"ARG", "COPY"}, "files and nothing that runs"


def test_the_gateways_lock_is_a_part_of_the_one_that_is_tested() -> None:
    embedding = (ROOT / "locks/embedding.txt").read_text()

    def versions(text: str) -> set[str]:
        found = {line.partition(" ;")[0].strip() for line in locked(text)}
        return {one for one in found if not one.startswith("tzdata==")}  # of Windows alone, where no image runs

    assert versions(GATEWAY) | versions(embedding) <= versions(CPU)
    assert not re.search(r"^(torch|transformers|scipy|mlflow|dvc)==", GATEWAY, re.MULTILINE)


def from_config_maps(folder: Path, url: str) -> None:
    """Lay out what staging mounts, with an upstream and a key that exist here."""
    released = ROOT / "k8s/overlays/staging/released"
    served: dict[str, Any] = yaml.safe_load((released / "serving.yaml").read_text())
    for upstream in served["upstreams"].values():
        upstream["base_url"] = url
    served["keys"][0]["sha256"] = sha256(KEY.encode()).hexdigest()
    (folder / "declared").mkdir()
    (folder / "declared/serving.yaml").write_text(json.dumps(served))
    (folder / "prompts").symlink_to(released / "prompts")


def test_the_gateway_in_its_image_knows_its_version(tmp_path: Path) -> None:
    for word, rest in stages()["gateway"].steps:
        if word == "COPY" and not rest.startswith("--from="):
            copy(rest, tmp_path, in_folder(tmp_path))
    code = "from pipelines.serving.accounts import VERSION; print(VERSION)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "srv/gatehouse", capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


class FromImage(Running):
    """The gateway from nothing but what its image holds, with the arguments that Kubernetes gives it."""

    def __init__(self, image: Path, settings: dict[str, str]) -> None:
        program, *arguments = json.loads(settings["ENTRYPOINT"])
        documents = yaml.safe_load_all((ROOT / "k8s/base/gateway.yaml").read_text())
        (pod,) = [one["spec"]["template"] for one in documents if one["kind"] == "Deployment"]
        ports = ["--host", "127.0.0.1", "--port", "0", "--private-host", "127.0.0.1", "--private-port", "0"]
        command = [str(image / "opt/venv/bin" / program), *arguments, *pod["spec"]["containers"][0]["args"], *ports]
        self.folder = image / settings["WORKDIR"][1:]
        environment = {"PYTHONDONTWRITEBYTECODE": settings["PYTHONDONTWRITEBYTECODE"]}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True)
        self.follow()


@pytest.mark.slow
def test_the_gateway_answers_from_nothing_but_what_its_image_holds(tmp_path: Path) -> None:
    settings = carry_out("gateway", tmp_path, in_folder(tmp_path))
    python = tmp_path / "opt/venv/bin/python3"
    for name in ("torch", "transformers", "scipy", "pytest"):
        command = [
            str(python),
            "-c",
            f"import importlib.util as u; raise SystemExit(u.find_spec({name!r}) is not None)",
        ]
        assert subprocess.run(command, cwd="/", env={}, check=False).returncode == 0, f"{name} is in the image"
    code = "from pipelines.serving.minilm import MiniLM; assert MiniLM().embed('Where is my parcel?').shape == (384,)"
    settled = tmp_path / settings["WORKDIR"][1:]
    done = subprocess.run(
        [str(python), "-c", code], cwd=settled, env={}, check=False, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, f"the semantic cache has no model: {done.stderr}"
    upstreams = Upstreams()
    try:
        from_config_maps(tmp_path / settings["WORKDIR"][1:], upstreams.url)
        before = {path for path in tmp_path.rglob("*") if ".gatehouse" not in path.parts}
        gateway = FromImage(tmp_path, settings)
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)
        question = {"role": "user", "content": "Where is my parcel?"}
        answer = client.chat.completions.create(model="reply", messages=[question])  # type: ignore[list-item]
        assert answer.choices[0].message.content == "ok"
        assert gateway.stop() == 0
    finally:
        upstreams.kill()
    after = {path for path in tmp_path.rglob("*") if ".gatehouse" not in path.parts}
    assert after == before, "it writes outside of its volume, and the image is read-only"
