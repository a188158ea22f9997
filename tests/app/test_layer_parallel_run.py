"""Layer-parallel runs: the sequential run's results, checkpoints that cross over, and clean ends."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_workers import kill_one
from omegaconf import DictConfig
from torch import Tensor

from targetprop.app.errors import DivergenceError
from targetprop.app.run import train
from targetprop.app.trainer import build_layer_parallel_trainer
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]
THREE_PAIRS = (
    "network.hparams.channels=[4,4,6]", "network.hparams.activation=elu", "model.hparams.noise=0.1",
    "model.hparams.b_optim.lr=[0.01,0.02,0.05]", "trainer.threads=1", "scheduler=none",
    "callbacks.alignment.every_n_steps=2",
)  # fmt: skip
PARALLEL = "trainer=layer_parallel"


def state_of(checkpoint: Path) -> list[Tensor]:
    """Every tensor of a checkpoint: weights, all optimisers, callbacks."""

    def tensors(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from tensors(child)

    saved = torch.load(checkpoint, weights_only=True)
    return list(tensors([saved["state_dict"], saved["optimizer_states"]]))


def assert_same_run(one: Path, other: Path) -> None:
    first, second = state_of(one / "checkpoints/last.ckpt"), state_of(other / "checkpoints/last.ckpt")
    assert len(first) == len(second) > 20
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    results = [json.loads((each / "results.json").read_text()) for each in (one, other)]
    assert results[0]["test"] == results[1]["test"]
    assert results[0]["validation"] == results[1]["validation"]
    measured = [history_of(each / "checkpoints/last.ckpt") for each in (one, other)]
    assert measured[0] == measured[1]
    assert all(measured[0])


def history_of(checkpoint: Path) -> list[list[dict[str, float]]]:
    """What the callbacks have measured, without times."""
    callbacks = torch.load(checkpoint, weights_only=True)["callbacks"]
    epochs = [{k: v for k, v in row.items() if k != "seconds"} for row in callbacks["History"]["epochs"]]
    return [epochs, callbacks["Alignment"]["rows"]]


def csv_rows(path: Path) -> list[dict[str, float]]:
    """What was logged."""
    with path.open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.parametrize("model", ["layer_parallel_dtp", pytest.param("delta_mirror", marks=pytest.mark.slow)])
def test_checkpoints_cross_over_between_sequential_and_layer_parallel_runs(
    compose: Compose, tmp_path: Path, model: str
) -> None:
    common = (*THREE_PAIRS, f"model={model}")
    train(compose(*common, "trainer.max_epochs=2", output="sequential"))
    train(compose(*common, PARALLEL, "trainer.max_epochs=1", output="parallel1"))
    half = tmp_path / "parallel1/checkpoints/last.ckpt"
    train(compose(*common, "trainer.max_epochs=2", f"ckpt_path={half}", output="sequential2"))
    assert_same_run(tmp_path / "sequential2", tmp_path / "sequential")
    train(compose(*common, "trainer.max_epochs=1", output="sequential1"))
    half = tmp_path / "sequential1/checkpoints/last.ckpt"
    arguments = (PARALLEL, "trainer.max_epochs=2", "trainer.processes=2", f"ckpt_path={half}")
    train(compose(*common, *arguments, output="parallel2"))
    assert_same_run(tmp_path / "parallel2", tmp_path / "sequential")


@pytest.mark.slow  # test_workers.py has it of processes without a run, and the torture suite's short form of one
def test_a_killed_process_ends_the_run_and_is_named(tmp_path: Path) -> None:
    end = kill_one(tmp_path / "run", random.Random(0))
    assert end.clean, end.output


@pytest.mark.slow
def test_a_stopped_process_ends_the_run_and_is_named(tmp_path: Path) -> None:
    end = kill_one(tmp_path / "run", random.Random(0), signal.SIGSTOP)
    assert end.clean, end.output


def test_a_taken_port_does_not_matter(compose: Compose) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 29500))  # the one that torch takes if it is told nothing
        taken.listen()
        metrics = train(compose(*THREE_PAIRS, "model=layer_parallel_dtp", PARALLEL, "trainer.processes=1"))
    assert 0 <= metrics["test/accuracy"] <= 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.processes=4", r"trainer.processes: expected at most 3, one for each pair.*got 4"),
        ("trainer.processes=0", r"trainer.processes.*got 0"),
        ("trainer.threads=0", r"trainer.threads.*got 0"),
        ("trainer.data_parallel=0", r"trainer.data_parallel.*got 0"),
        ("trainer.gpus=-1", r"trainer.gpus.*got -1"),
        ("model=backprop", "trainer: Backprop has no feedback to train"),
        ("datamodule.batch_size=100000", "batch_size: 100000 is larger"),
        ("trainer.cuda_graph=true", r"trainer.cuda_graph"),
        ("trainer.precision=foo", r"^trainer.precision: unknown value .foo.. Valid: 32-true"),
    ],
)
def test_mistakes_are_told_by_whoever_makes_them(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    settings = [each for each in THREE_PAIRS if override != "model=backprop" or not each.startswith("model.hparams")]
    few = [] if override.startswith("trainer.processes") else ["trainer.processes=1"]
    with pytest.raises(UserError, match=message):
        train(compose(*settings, PARALLEL, *few, override))
    assert not list((tmp_path / "temporary").iterdir())


def test_a_network_of_one_block_is_refused(compose: Compose) -> None:
    alone = compose("network.hparams.channels=[]", "model.hparams.b_optim.lr=0.01", "model.hparams.noise=0.1", PARALLEL)
    with pytest.warns(UserWarning, match="one block"), pytest.raises(UserError, match="a network of one block has no"):
        train(alone)


def test_divergence_is_told_from_other_mistakes(compose: Compose) -> None:
    with pytest.raises(DivergenceError, match=r"^Training diverged at step \d+"):
        train(compose(*THREE_PAIRS, PARALLEL, "trainer.processes=1", "model.hparams.f_optim.lr=1e30"))


def test_no_groups_at_all_are_refused_under_torchrun() -> None:
    with pytest.raises(UserError, match=r"data_parallel.*got 0"):
        build_layer_parallel_trainer(data_parallel=0)


@pytest.mark.slow
def test_groups_on_halves_of_a_batch_measure_what_one_process_does(compose: Compose, tmp_path: Path) -> None:
    common = (*THREE_PAIRS, "model=layer_parallel_dtp", "trainer.precision=64-true", "trainer.max_epochs=2")
    train(compose(*common, "datamodule.batch_size=32", output="sequential"))
    groups = (PARALLEL, "trainer.data_parallel=2", "trainer.processes=1", "datamodule.batch_size=16")
    train(compose(*common, *groups, output="groups"))
    one, other = (history_of(tmp_path / each / "checkpoints/last.ckpt") for each in ("groups", "sequential"))
    for rows, expected in zip(one, other, strict=True):
        assert len(rows) == len(expected) > 1
        for row, values in zip(rows, expected, strict=True):
            assert row == pytest.approx(values, rel=1e-5, abs=1e-5)
    logged = [csv_rows(tmp_path / each / "csv/metrics.csv") for each in ("groups", "sequential")]
    for row, values in zip(*logged, strict=True):
        assert row == pytest.approx(values, rel=1e-5, abs=1e-5)


def test_torchrun_without_layer_parallelism_is_refused(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="trainer=layer_parallel"):
        train(compose(*THREE_PAIRS))


def torchrun(
    directory: Path, *overrides: str, processes: int = 2, hosts: int = 1, host: int = 0, port: int = 0
) -> subprocess.Popen[str]:
    """Our command under torchrun, as one of several hosts if need be."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--nnodes={hosts}"]
    where = ["--standalone"] if hosts == 1 else [f"--node-rank={host}", "--master-addr=127.0.0.2"]
    where += [] if hosts == 1 else [f"--master-port={port}", f"--local-addr=127.0.0.{2 + host}"]
    small = ("network.hparams.channels=[4,4,6]", "trainer.max_epochs=1", "trainer.limit_train_batches=3")
    hparams = ("model=layer_parallel_dtp", "model.hparams.feedback_training_iterations=2", *THREE_PAIRS)
    command = [*launcher, *where, "-m", "targetprop", PARALLEL, *hparams, *small, *overrides]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_under_torchrun_on_two_hosts_the_result_is_the_sequential_one(compose: Compose, tmp_path: Path) -> None:
    train(compose(*THREE_PAIRS, "model=layer_parallel_dtp", output="sequential"))
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    (tmp_path / "hosts").mkdir()
    output = (f"output_dir={tmp_path}/hosts/run",), ()  # where process 0 writes; the other host has none
    hosts = [
        torchrun(tmp_path / "hosts", *output[host], "logger=csv", processes=size, hosts=2, host=host, port=port)
        for host, size in enumerate((2, 1))
    ]
    said = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    assert_same_run(tmp_path / "hosts/run", tmp_path / "sequential")
    assert "Accuracy (%)" in said[0]
    assert "Accuracy (%)" not in said[1], "process 0 speaks for all"
    assert sorted(each.name for each in (tmp_path / "hosts").iterdir()) == ["run", "runs"], "the others leave nothing"
    assert len(list((tmp_path / "hosts/runs").glob("*/*"))) == 1


@pytest.mark.parametrize("key", ["seed", pytest.param("callbacks.divergence.every_n_steps", marks=pytest.mark.slow)])
def test_different_settings_of_processes_are_refused(tmp_path: Path, key: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    hosts = [torchrun(tmp_path, f"{key}={7 + host}", processes=1, hosts=2, host=host, port=port) for host in range(2)]
    said = [" ".join(host.communicate(timeout=300)[0].split()) for host in hosts]
    assert all(host.returncode for host in hosts)
    assert f"Error: {key}: all processes need the same settings; process 0 has 7, process 1 has 8." in said[0], said
