"""Layer-parallel runs: the sequential run's results, checkpoints that cross over, and clean ends."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_workers import kill_one
from omegaconf import DictConfig
from torch import Tensor

from targetprop.errors import UserError
from targetprop.training.run import train

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


@pytest.mark.parametrize("model", ["layer_parallel_dtp", "amortised_dtp"])
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


def test_a_killed_process_ends_the_run_and_is_named(tmp_path: Path) -> None:
    end = kill_one(tmp_path / "run", random.Random(0))
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
        ("model=backprop", "model=backprop has no feedback"),
        ("datamodule.batch_size=100000", "batch_size: 100000 is larger"),
        ("trainer.cuda_graph=true", r"trainer.cuda_graph"),
    ],
)
def test_mistakes_are_told_by_whoever_makes_them(compose: Compose, override: str, message: str) -> None:
    settings = [each for each in THREE_PAIRS if override != "model=backprop" or not each.startswith("model.hparams")]
    with pytest.raises(UserError, match=message):
        train(compose(*settings, PARALLEL, override))


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


def test_under_torchrun_on_two_hosts_the_result_is_the_sequential_one(compose: Compose, tmp_path: Path) -> None:
    train(compose(*THREE_PAIRS, "model=layer_parallel_dtp", output="sequential"))
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    (tmp_path / "hosts").mkdir()
    output = f"output_dir={tmp_path}/hosts/run"
    hosts = [
        torchrun(tmp_path / "hosts", output, "logger=csv", processes=size, hosts=2, host=host, port=port)
        for host, size in enumerate((2, 1))
    ]
    said = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    assert_same_run(tmp_path / "hosts/run", tmp_path / "sequential")
    assert "Accuracy (%)" in said[0]
    assert "Accuracy (%)" not in said[1], "process 0 speaks for all"
    assert sorted(each.name for each in (tmp_path / "hosts").iterdir()) == ["run", "runs"], "the others leave nothing"
    assert len(list((tmp_path / "hosts/runs").glob("*/*"))) == 1


def test_different_settings_of_processes_are_refused(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    hosts = [torchrun(tmp_path, f"seed={7 + host}", processes=1, hosts=2, host=host, port=port) for host in range(2)]
    said = [" ".join(host.communicate(timeout=300)[0].split()) for host in hosts]
    assert all(host.returncode for host in hosts)
    assert "Error: seed: all processes need the same settings; process 0 has 7, process 1 has 8." in said[0], said
