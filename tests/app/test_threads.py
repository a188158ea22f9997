"""How threads wait, who says so and when; and how many there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from targetprop.app.run import train
from targetprop.app.threads import WORK, cpu_threads, multiply_adds, worthwhile
from targetprop.app.waiting import NUMBER, POLICY, WAITING, set_wait_policy

Compose = Callable[..., DictConfig]
COMMAND = """
import os, sys
from targetprop.app import cli
cli.run = lambda: print("torch" in sys.modules, os.environ.get("GOMP_SPINCOUNT"), os.environ.get("KMP_BLOCKTIME"))
sys.argv = ["main.py", "seed=1"]
cli.main()
"""
LIBRARY = """
import os, torch
before = dict(os.environ)
import targetprop
targetprop.Learner
print(dict(os.environ) == before)
"""


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None of the variables, and as many threads afterwards as before."""
    for name in (*WAITING, *NUMBER, "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def printed(program: str, **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_policy_is_set_where_nothing_else_is() -> None:
    environment = {"HOME": "here"}
    set_wait_policy(environment)
    assert environment == {"HOME": "here", **POLICY}


@pytest.mark.parametrize("name", [*WAITING, *NUMBER])
def test_what_the_user_has_set_stands_alone(name: str) -> None:
    environment = {name: "7"}
    set_wait_policy(environment)
    assert environment == {name: "7"}


def test_the_number_that_torchrun_names_is_not_the_users() -> None:
    environment = {"TORCHELASTIC_RUN_ID": "a", "OMP_NUM_THREADS": "1"}
    set_wait_policy(environment)
    assert environment["GOMP_SPINCOUNT"] == POLICY["GOMP_SPINCOUNT"]


def test_the_command_line_sets_the_policy_before_torch_is_imported() -> None:
    assert printed(COMMAND) == ["False", *POLICY.values()]
    assert printed(COMMAND, OMP_WAIT_POLICY="active") == ["False", "None", "None"]


def test_the_library_changes_no_variable() -> None:
    assert printed(LIBRARY) == ["True"]


def test_a_tiny_network_gets_one_thread_and_a_large_one_all() -> None:
    assert [worthwhile(work, 4) for work in (0, WORK - 1, WORK, 2 * WORK, 9 * WORK)] == [1, 1, 1, 2, 4]


def test_multiply_adds_are_counted_and_the_network_stays_as_it_is() -> None:
    norm = nn.BatchNorm2d(5)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), norm, nn.Flatten(), nn.Linear(5 * 36, 7))
    assert multiply_adds(network, (3, 8, 8)) == 36 * 5 * 27 + 5 * 36 * 7
    assert network.training
    assert norm.num_batches_tracked == 0
    assert all(not each._forward_hooks for each in network.modules())


def test_threads_are_those_asked_for_or_named_or_as_many_as_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(4)
    for asked, work, expected in ((3, 0, 3), (None, 0, 1), (None, 2 * WORK, 2), (None, None, 4)):
        with cpu_threads(asked, work) as threads:
            assert threads == torch.get_num_threads() == expected
        assert torch.get_num_threads() == 4, "the next run of a sweep starts from the same number"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with cpu_threads(None, 0) as threads:
        assert threads == 4
    with cpu_threads(2, 0) as threads:
        assert threads == 2


def test_a_run_says_how_many_threads_it_had(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    caplog.set_level("INFO", logger="targetprop.app.run")
    for work, setting, expected in ((WORK, "null", 1), (1, "null", 2), (WORK, "2", 2)):
        monkeypatch.setattr("targetprop.app.threads.WORK", work)
        caplog.clear()
        output = f"{work}-{setting}"
        train(compose(f"trainer.threads={setting}", "trainer.max_epochs=1", output=output))
        assert json.loads((tmp_path / output / "results.json").read_text())["threads"] == expected
        assert any(said.endswith(f"CPU threads: {expected}") for said in caplog.messages)
