"""Measures on the command line: logged, kept, drawn, and without a trace in the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from identical import assert_identical
from omegaconf import DictConfig

from targetprop import UserError
from targetprop.app.report.measures import draw_measures
from targetprop.app.run import train
from targetprop.measure import MEASURES

Compose = Callable[..., DictConfig]
EVERY = ("callbacks=measures", "callbacks.measures.every_n_steps=2", "trainer.threads=1")
ALL = f"callbacks.measures.which=[{','.join(MEASURES)}]"
QUANTITIES = {quantity for measure in MEASURES.values() for quantity in measure.quantities}


def checkpoint(run: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return saved


def rows_of(run: Path) -> list[dict[str, float]]:
    (key,) = (key for key in checkpoint(run)["callbacks"] if key.startswith("Measures"))
    rows: list[dict[str, float]] = checkpoint(run)["callbacks"][key]["rows"]
    return rows


@pytest.mark.pictures
def test_measures_are_logged_kept_and_drawn_and_change_nothing(compose: Compose, tmp_path: Path) -> None:
    train(compose(*EVERY, "+callbacks.measures.numbers.gauss_newton.iterations=5", ALL, output="measured"))
    train(compose("trainer.threads=1", "callbacks.alignment=null", "callbacks.genuineness=null", output="alone"))
    measured, alone = (checkpoint(tmp_path / name) for name in ("measured", "alone"))
    for part in ("state_dict", "optimizer_states"):
        assert_identical(measured[part], alone[part], part)
    rows = rows_of(tmp_path / "measured")
    assert [row["step"] for row in rows] == [0, 2]
    assert {name.partition("/")[0] for name in rows[0]} == QUANTITIES | {"step", "epoch"}
    header = (tmp_path / "measured" / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"reach/block3", "gnt_angle/block1", "time_share/block2", "transpose_angle/block2"} <= set(header)
    assert (tmp_path / "measured" / "measures.png").stat().st_size > 10_000
    results = json.loads((tmp_path / "measured" / "results.json").read_text())["measures"]
    assert results["reach"]["block2"] == rows[-1]["reach/block2"]
    assert set(results) == QUANTITIES


def test_measures_go_on_with_the_run(compose: Compose, tmp_path: Path) -> None:
    settings = (*EVERY, "callbacks.measures.which=[reach,rank,transpose]")
    train(compose(*settings, "trainer.max_epochs=2", output="whole"))
    train(compose(*settings, output="half"))
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    train(compose(*settings, "trainer.max_epochs=2", f"ckpt_path='{last}'", output="rest"))
    assert [row["step"] for row in rows_of(tmp_path / "rest")] == [0, 2, 4]
    assert rows_of(tmp_path / "rest") == rows_of(tmp_path / "whole")


def test_what_makes_no_sense_is_left_out_and_said_once(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(compose(*EVERY, "model=backprop"))
    said = [line for line in caplog.messages if "is left out" in line]
    left_out = ("transpose", "inverse", "reconstruction", "reach", "time_share")
    assert len(said) == len(left_out)
    for name, line in zip(left_out, said, strict=True):
        assert line.startswith(f"callbacks.measures: the measure {name} is left out: ")
    rows = rows_of(tmp_path / "run")
    assert len(rows) == 2
    assert {name.partition("/")[0] for name in rows[0]} == {
        "step", "epoch", "gnt_angle", "gnt_ratio", "activation_rank", "update_rank"
    }  # fmt: skip


def test_a_measure_that_fails_ends_no_run(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(probe: object) -> dict[str, float]:
        raise torch.OutOfMemoryError("no memory\nis left")

    monkeypatch.setattr("targetprop.measure.registry.rank", fails)
    broken = {**MEASURES, "rank": type(MEASURES["rank"])(fails, {"update_rank": "rank"})}
    monkeypatch.setattr("targetprop.measure.registry.MEASURES", broken)
    train(compose(*EVERY, "callbacks.measures.which=[reach,rank]"))
    assert [line for line in caplog.messages if "the measure rank is left out: no memory is left" in line]
    assert all("reach/block2" in row for row in rows_of(tmp_path / "run"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("callbacks.measures.which=[reech]", ["callbacks.measures.which: unknown value 'reech'", "'reach'"]),
        ("callbacks.measures.which=reach", ["callbacks.measures.which", "list of names", "'reach'"]),
        ("+callbacks.measures.numbers.inverse.damping=-1", ["callbacks.measures.numbers.inverse.damping", "-1"]),
        ("+callbacks.measures.numbers.rank.probes=3", ["callbacks.measures.numbers.rank.probes", "no such setting"]),
        ("callbacks.measures.every_n_steps=0", ["callbacks.measures.every_n_steps", "1 or more", "0"]),
        ("+trainer.accumulate_grad_batches=2", ["callbacks.measures", "accumulate_grad_batches=2"]),
    ],
)
def test_mistakes_are_said_in_one_line_with_their_key(compose: Compose, override: str, words: list[str]) -> None:
    alone = ["callbacks.alignment=null"] if "accumulate" in override else []
    with pytest.raises(UserError) as caught:
        train(compose(*EVERY, override, *alone))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("model", ["weight_mirror", "parallel_dtp"])
def test_other_rules_are_measured(compose: Compose, tmp_path: Path, model: str) -> None:
    train(compose(*EVERY, f"model={model}"))
    assert len(rows_of(tmp_path / "run")) == 2


def test_a_picture_has_a_panel_for_what_was_measured(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "reach/block2": 0.5, "reach/block3": float("nan")} for epoch in (0.0, 0.5)]
    draw_measures(tmp_path / "measures.png", rows, {"reach": "reach", "never": "measured"})
    assert (tmp_path / "measures.png").stat().st_size > 1000
