from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.core.files import only_one
from pipelines.core.rows import write_rows
from pipelines.training.launch import command
from tests.scratch import ROOT, Scratch, triage_rows


@pytest.fixture
def scratch(tmp_path: Path, tiny_model: Path) -> Scratch:
    project = Scratch(tmp_path, tiny_model)
    project.params["train"] |= {"epochs": 1.0, "batch_size": 4, "learning_rate": 0.02, "checkpoint_steps": 2}
    project.save()
    write_rows(tmp_path / "data/prepared/triage/train.jsonl", triage_rows(16))
    return project


def test_it_shows_progress_on_stderr_and_the_candidate_on_stdout(scratch: Scratch) -> None:
    outcome = scratch.run("train")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("models/candidate: 4 steps, 16 rows, ")
    assert "rows/s" in outcome.stderr
    assert "4/4" in outcome.stderr
    assert "Warning" not in outcome.stderr


def test_two_trainings_at_once_in_one_folder_are_refused(scratch: Scratch) -> None:
    with only_one("train", root=scratch.folder):
        outcome = scratch.run("train")
    assert outcome.returncode == 2
    assert "another `train`" in outcome.stderr


@pytest.mark.skipif(torch.cuda.device_count() > 3, reason="there are as many GPUs")
def test_more_gpus_than_there_are_is_one_clear_line(scratch: Scratch) -> None:
    scratch.params["train"]["processes"] = 4
    scratch.save()
    outcome = scratch.run("train")
    assert outcome.returncode == 2
    assert "params.yaml: train.processes: 4 GPUs are declared" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_the_declared_number_of_gpus_is_what_accelerate_starts() -> None:
    assert command(4, "scripts.train")[1:6] == [
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "4",
        "--num_machines",
    ]
    assert command(4, "scripts.train")[-3:] == ["--multi_gpu", "-m", "scripts.train"]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(scratch: Scratch) -> None:
    assert scratch.run("train").returncode == 0
    one = load_file(scratch.folder / "models/candidate/adapter_model.safetensors")
    scratch.params["train"]["batch_size"] = 2
    scratch.save()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    # What `accelerate launch --multi_gpu` starts too; on its own it also starts processes without GPUs.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    outcome = subprocess.run(
        [*torchrun, "-m", "scripts.train"], cwd=scratch.folder, env=environment, capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr
    two = load_file(scratch.folder / "models/candidate/adapter_model.safetensors")
    assert scratch.json("models/candidate/training.json")["steps"] == 4
    for name, weight in one.items():
        assert (two[name] - weight).abs().mean() < 0.1 * weight.abs().mean() + 1e-4


def test_a_full_disk_is_an_outside_failure_in_one_line(scratch: Scratch) -> None:
    # The kernel refuses to let a file grow, which is what the writers see of a full disk.
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.argv = ['train']; "
        "runpy.run_module('scripts.train', run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=scratch.folder, env=environment, capture_output=True, text=True
    )
    assert outcome.returncode == 5, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (scratch.folder / "models/candidate").exists()
