"""`scripts.setup`: what a lock names is installed once per machine, by hash, and is never taken half-made."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.caller import ROOT, commit, ship

# Takes the place of uv, which tests cannot download: knows the one command that setup gives, and has pip do it.
UV = """\
import os, subprocess, sys
def main():
    *flags, lock = sys.argv[1:]
    assert flags == "pip install --quiet --require-hashes --no-deps --link-mode copy -r".split(), flags
    assert os.environ["VIRTUAL_ENV"] == sys.prefix
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", os.environ["UV_FIND_LINKS"]]
    raise SystemExit(subprocess.call([*pip, "--require-hashes", "--no-deps", "-r", lock]))
"""


def wheel(folder: Path, name: str, code: str, script: str = "") -> str:
    """Write a wheel and return the line that locks it."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    files = {
        f"{name}.py": code,
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{name}-1.0.dist-info/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
            sum_ = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{file},sha256={sum_},{len(text)}\n"
        archive.writestr(f"{name}-1.0.dist-info/RECORD", f"{record}{name}-1.0.dist-info/RECORD,,\n")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Machine:
    """A runner with this repository, whose locks name two small packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = ship(folder / "gatehouse")
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        commit(self.workspace)
        self.lock("uv", wheel(self.wheels, "uv", UV, "uv = uv:main"))
        self.lock("cpu", wheel(self.wheels, "small", "built_for = 'cpu'\n"))
        self.lock("cuda", wheel(self.wheels, "large", "built_for = 'cuda'\n"))
        # Of the machine's commands, those that are needed: a GPU's among them would change what is installed.
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name in ("bash", "git", "dirname", "tr"):
            (self.programs / name).symlink_to(str(shutil.which(name)))
        (self.programs / "python3").symlink_to(Path(sys.executable).resolve())

    def lock(self, name: str, text: str) -> None:
        (self.source / f"locks/{name}.txt").write_text(text)

    def start(self, *arguments: str, python: str = "python3") -> subprocess.Popen[str]:
        environment = {
            "PATH": str(self.programs), "HOME": str(self.folder), "GATEHOUSE_PYTHON": python, "GITHUB_ACTIONS": "true",
            "RUNNER_TOOL_CACHE": str(self.folder / "tools"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels),
            **{f"GITHUB_{name}": str(self.folder / name) for name in ("ENV", "PATH", "OUTPUT")},
        }  # fmt: skip
        command = [str(self.source / "actions/python"), "-m", "scripts.setup", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.workspace, env=environment, text=True, stdout=pipe, stderr=pipe)

    def run(self, *arguments: str, python: str = "python3") -> tuple[int, str]:
        process = self.start(*arguments, python=python)
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return process.returncode, (out + err).removesuffix(f"exit code {process.returncode}\n").strip()

    def outputs(self) -> dict[str, str]:
        """Return the last value of each output."""
        text = (self.folder / "OUTPUT").read_text()
        return dict(re.findall(r"^(\w+)<<(?:end-\w+)\n(.*)\nend-\w+$", text, re.M))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.slow
def test_what_is_there_and_whole_is_taken_and_what_is_not_is_made_anew(machine: Machine) -> None:
    assert machine.run() == (0, "")
    first = machine.outputs()
    assert (first["lock"], first["reused"]) == ("cpu", "false")
    python = Path(first["python"])
    assert (machine.folder / "ENV").read_text() == f"GATEHOUSE_PYTHON={python}\n"
    assert (machine.folder / "PATH").read_text() == f"{python.parent}\n"
    subprocess.run([python, "-c", "import small; assert small.built_for == 'cpu'"], check=True)

    assert machine.run() == (0, "")
    assert machine.outputs() == {**first, "reused": "true"}

    shutil.rmtree(next(python.parents[1].glob("lib/*/site-packages/small-1.0.dist-info")))  # a cleaner was here
    assert machine.run() == (0, "")
    assert machine.outputs() == first, "half an environment was taken for a whole one"

    python.parents[1].with_suffix(".json").unlink()  # the job that made it was killed before it was done
    assert machine.run() == (0, "")
    assert machine.outputs() == first, "an environment that nobody finished was taken"


@pytest.mark.slow
def test_two_jobs_of_one_machine_install_once(machine: Machine) -> None:
    jobs = [machine.start() for _ in range(2)]
    assert [job.wait(timeout=300) for job in jobs] == [0, 0], [job.communicate() for job in jobs]
    said = re.findall(r"^reused<<end-\w+\n(.*)$", (machine.folder / "OUTPUT").read_text(), re.M)
    assert sorted(said) == ["false", "true"]


@pytest.mark.slow
def test_a_package_that_is_not_what_the_lock_names_is_refused(machine: Machine) -> None:
    machine.lock("cpu", f"small==1.0 --hash=sha256:{'0' * 64}\n")
    code, said = machine.run("--lock=cpu")
    assert code == 5
    assert said.startswith("::error::locks/cpu.txt cannot be installed: ")
    assert said.count("\n") == 0
    assert not list((machine.folder / "tools/gatehouse").glob("*.json")), "what failed was marked as whole"


@pytest.mark.slow
def test_where_no_cpu_build_is_offered_the_cuda_lock_serves_if_nothing_else_was_asked_for(machine: Machine) -> None:
    (machine.wheels / "small-1.0-py3-none-any.whl").unlink()
    assert machine.run() == (0, "")
    assert machine.outputs()["lock"] == "cuda"
    assert machine.run() == (0, "")
    assert (machine.outputs()["lock"], machine.outputs()["reused"]) == ("cuda", "true")


def test_cuda_on_a_machine_without_a_gpu_is_refused(machine: Machine) -> None:
    said = "::error::lock: cuda was asked for, but this runner has no GPU (no nvidia-smi); use auto or cpu"
    assert machine.run("--lock=cuda") == (2, said)


@pytest.mark.parametrize("version", ["2.7", "3.10", "4.0", "3"])
def test_another_python_is_refused(machine: Machine, version: str) -> None:
    other = machine.programs / "python-other"
    other.write_text(f"#!/bin/bash\necho {version}\n")
    other.chmod(0o755)
    said = f"Python 3.11 or newer is needed, 'python-other' is {version}; name another one in the input 'python'"
    assert machine.run(python="python-other") == (2, f"::error title=gatehouse::{said} of actions/setup")


@pytest.mark.parametrize("python", ["no such\n::error::thing", "/", "git"])
def test_what_is_no_python_is_refused_in_one_line(machine: Machine, python: str) -> None:
    code, said = machine.run(python=python)
    assert code == 2
    assert re.fullmatch(r"::error title=gatehouse::[^\n]*input 'python'[^\n]*", said)


def test_a_dirty_workspace_is_refused_before_anything_is_installed(machine: Machine) -> None:
    (machine.workspace / "gates.yaml").touch()
    code, said = machine.run()
    assert code == 2
    assert said.startswith("::error::the workspace is not what was checked out (gates.yaml); an earlier run may have")
    assert not (machine.folder / "tools").exists()


def test_the_modules_are_found_without_any_package_installed() -> None:
    """The system's Python has none: setup makes the environment that holds them."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import scripts.setup"]
    code = f"{command[-1]}; import pipelines.core.installation, pipelines.core.workspace, pipelines.core.github.runner"
    subprocess.run([*command[:-1], code], check=True, env=os.environ)
