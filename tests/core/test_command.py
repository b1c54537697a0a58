"""Every way a script can end: one line, the right exit code, never a traceback but for a bug."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAD = (
    "import os, sys, errno, signal, time\nfrom pathlib import Path\nfrom pipelines.core.command import run\n"
    "from pipelines.core.errors import *\n"
)


def end(body: str, *, stdout: int | None = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"{HEAD}def main():\n    {body}\nrun(main)\n"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("raise ConfigError('params.yaml:3: seed: is odd')", 2, "params.yaml:3: seed: is odd"),
        ("raise GateFailed('quality fails')", 3, "quality fails"),
        ("raise NotEnoughEvidence('undecided')", 4, "undecided"),
        ("raise ServiceError('no network')", 5, "no network"),
        ("raise KeyboardInterrupt", 130, "interrupted; run the same command again to go on from what is saved"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", 130, "interrupted; run the same command again"),
        ("raise MemoryError", 5, "not enough memory; lower the batch size or close other programs"),
        (
            "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried')",
            5,
            "not enough memory; lower the batch",
        ),
        ("import torch; torch.empty(2**46)", 5, "not enough memory; lower the batch size or close other programs"),
        ("open('/dev/full', 'wb', 0).write(b'x')", 5, "no disk space left; free some and run again"),
        ("raise PermissionError(errno.EACCES, 'Permission denied', 'models/x')", 5, "models/x: not permitted to write"),
        ("Path('params.yaml/x').mkdir(parents=True)", 2, "params.yaml/x: cannot be used (Not a directory); move what"),
        ("Path('x' * 300).touch()", 2, "cannot be used (File name too long)"),
        ("raise ConfigError('a\\n::error::forged\\x1b[2J')", 2, "a\\n::error::forged\\x1b[2J"),
    ],
)
def test_an_error_is_one_line_and_its_code_the_last(body: str, code: int, message: str) -> None:
    result = end(body)
    assert result.returncode == code
    first, last = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert last == f"exit code {code}"


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ("gates.yaml:14: x: 100% odd", "::error file=llm/gates.yaml,line=14::gates.yaml:14: x: 100%25 odd"),
        ("../a,b%.yaml:3: odd", "::error file=a%2Cb%25.yaml,line=3::../a,b%25.yaml:3: odd"),
        ("10.0.0.1:5000: refused", "::error::10.0.0.1:5000: refused"),
        ("a\0b:5: refused", "::error::a\\x00b:5: refused"),
        ("no place\n::error::forged%0A::stop", "::error::no place\\n::error::forged%250A::stop"),
        ("http://127.0.0.1:80/x refused", "::error::http://127.0.0.1:80/x refused"),
        ("x ##[error]forged", "::error::x #\\x23[error]forged"),
    ],
)
def test_on_a_runner_an_error_points_at_its_file_and_line(message: str, written: str, tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm/gates.yaml").touch()
    (tmp_path / "a,b%.yaml").touch()
    body = f"os.chdir({str(tmp_path / 'llm')!r}); raise ConfigError({message!r})"
    result = end(body, GITHUB_ACTIONS="true", GITHUB_WORKSPACE=str(tmp_path))
    assert result.stderr.splitlines() == [written, "exit code 2"]


@pytest.mark.parametrize(("body", "code"), [("return None", 0), ("return 0", 0), ("return 3", 3), ("return 4", 4)])
def test_a_returned_code_is_the_exit_code_and_told_unless_zero(body: str, code: int) -> None:
    result = end(body)
    assert result.returncode == code
    assert result.stderr == (f"exit code {code}\n" if code else "")


@pytest.mark.parametrize(("body", "cause"), [("return {}['x']", "KeyError: 'x'"), ("open('none/x')", "No such file")])
def test_a_bug_keeps_its_traceback_and_exits_with_1(body: str, cause: str) -> None:
    result = end(body)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert cause in result.stderr


def test_wrong_arguments_exit_with_2_and_say_so_last() -> None:
    result = end("import argparse; argparse.ArgumentParser().parse_args(['--none'])")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "exit code 2"


def test_help_exits_with_0() -> None:
    result = end("import argparse; argparse.ArgumentParser(prog='x').parse_args(['--help'])")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: x")


def test_dvc_is_told_the_code_through_a_file(tmp_path: Path) -> None:
    end("raise GateFailed('x')", GATEHOUSE_EXIT_FILE=str(tmp_path / "code"))
    assert (tmp_path / "code").read_text() == "3"
    end("return 0", GATEHOUSE_EXIT_FILE=str(tmp_path / "code"))
    assert (tmp_path / "code").read_text() == "0"


def test_a_stage_that_outlives_whoever_started_it_ends_without_a_traceback(tmp_path: Path) -> None:
    result = end("raise GateFailed('x')", GATEHOUSE_EXIT_FILE=str(tmp_path / "gone" / "code"))
    assert result.returncode == 3
    assert "Traceback" not in result.stderr


def test_output_to_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        result = end("print('x' * 100000)", stdout=full.fileno())
    assert result.returncode == 5
    assert "no disk space left" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_reader_that_stops_reading_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    result = end("print('x' * 100000)", stdout=write)
    os.close(write)
    assert result.returncode == 141
    assert "Traceback" not in result.stderr


def test_any_character_can_be_printed_on_any_terminal() -> None:
    result = end("print('\\xe9\\U0001f600\\ud800')", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert (result.returncode, result.stdout) == (0, "\\xe9\\U0001f600\\ud800\n")


def test_ctrl_c_in_the_middle_cleans_up_and_exits_with_130(tmp_path: Path) -> None:
    body = (
        "from pipelines.core.files import replacing\n"
        f"    with replacing(Path({str(tmp_path)!r}) / 'a') as stream:\n"
        "        stream.write(b'half'); stream.flush(); print('on', flush=True); time.sleep(30)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{HEAD}def main():\n    {body}\nrun(main)\n"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "exit code 130"
    assert list(tmp_path.iterdir()) == []


HEAVY = {
    "aiohttp", "dvc", "jinja2", "mlflow", "numpy", "openai", "pandas", "pyarrow", "pydantic", "scipy", "torch",
    "transformers", "uvicorn", "yaml",
}  # fmt: skip


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "scripts").glob("[a-z]*.py")))
def test_help_of_every_script_comes_at_once(script: str) -> None:
    # What takes time is importing; a benchmark, not a test, has a clock.
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['scripts.{script}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('scripts.{script}', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        f"    print(sorted({HEAVY!r} & sys.modules.keys()), stop.code)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[] 0", result.stderr


def test_the_command_runner_imports_nothing_heavy() -> None:
    code = "import sys, pipelines.core.command; print({'pydantic', 'yaml', 'torch', 'numpy'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "set()\n"
