"""Pages of runs that are there: of directories, of sweeps, of what other comparisons wrote."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from compare_helpers import Commands
from omegaconf import OmegaConf

from targetprop.app.overrides import check_overrides
from targetprop.app.sweep import SweepReport
from targetprop.compare import existing, leaderboard, results
from targetprop.utils.errors import UserError


def made_run(folder: Path, seed: int, accuracy: float, *overrides: str) -> Path:
    """A directory as a run leaves it, of two epochs of two steps."""
    folder.mkdir(parents=True)
    config = check_overrides([*overrides, f"seed={seed}", f"output_dir={folder}", "trainer.max_epochs=2"])
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    parts = {part: {"accuracy": accuracy, "per_class": [accuracy]} for part in ("validation", "test")}
    cost = {"host_bytes": 3e8, "gpu_bytes": None, "processor_seconds": 5.0, "joules": 2000.0}
    facts = {"epoch_seconds": [2.0, 4.0], "cost": cost, "overrides": list(overrides)}
    (folder / "results.json").write_text(json.dumps({**parts, **facts}))
    (folder / "csv").mkdir()
    rows: list[dict[str, Any]] = [
        {"step": 0, "angle/block1": 10.0},
        {"step": 1, "train/loss": 2.0, "train/accuracy": 0.3},
        {"step": 1, "val/accuracy": accuracy / 2},
        {"step": 2, "angle/block1": 20.0},
        {"step": 3, "train/loss": 1.0, "train/accuracy": 0.4},
        {"step": 3, "val/accuracy": accuracy},
    ]
    with (folder / "csv" / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["step", "angle/block1", "train/loss", "train/accuracy", "val/accuracy"])
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    kinds = {
        "backprop": ("model=backprop",),
        "dtp": ("model=dtp",),
        "slow": ("model=dtp", "model.hparams.beta=0.1"),
        "other": ("model=dtp", "network=mlp"),
    }
    return [
        made_run(tmp_path / f"{name}_{seed}", seed, 0.5 + 0.01 * seed + 0.1 * (name == "dtp"), *overrides)
        for name, overrides in kinds.items()
        for seed in (1, 2)
    ]


def test_runs_are_grouped_by_data_network_and_settings(runs: list[Path]) -> None:
    first, second = existing.read(runs).boards
    assert first.title.startswith("digits, simple_vgg")
    assert [row.rule for row in first.rows] == ["backprop", "dtp, beta=0.7", "dtp, beta=0.1"]
    assert [row.rule for row in second.rows] == ["dtp"]
    assert (second.reference, second.title.split(",")[1].strip()) == (None, "mlp")
    dtp = first.rows[1]
    assert dtp.difference is not None
    assert dtp.test is not None
    assert (dtp.test.n, dtp.difference.n) == (2, 2)
    assert dtp.difference.mean == pytest.approx(0.1)
    assert dtp.cost.measured == "in the run"
    assert dtp.cost.step == pytest.approx(6 / 4)
    assert dtp.cost.joules == 2000
    assert dtp.angles == {"block1": {"1": 10.0, "2": 20.0}}
    assert dtp.needs is not None
    assert dtp.needs["noisy_phase"]
    assert dtp.source is not None
    assert first.rows[2].command == "python main.py model=dtp model.hparams.beta=0.1"


def test_the_command_makes_page_table_and_pictures(
    runs: list[Path], commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands("report", *map(str, runs), "--folder", "made", "--png") == 0
    assert "dtp, beta=0.7" in " ".join(capsys.readouterr().out.split())
    made = commands.folder / "made"
    assert {"page.html", "table.md", "results.json"} <= {path.name for path in made.iterdir()}
    pictures = sorted(path.name for path in made.glob("*.png"))
    assert len(pictures) == 2 * 4 - 1  # without a reference there is no price as a multiple of its
    assert commands("report", "made/results.json", "--folder", "again") == 0
    assert results.read(commands.folder / "again" / "results.json") == results.read(made / "results.json")


def test_runs_that_no_plan_made_stand_on_no_leaderboard(runs: list[Path]) -> None:
    joined, refused = leaderboard.join({"a.json": existing.read(runs)})
    assert not joined.boards
    assert len(refused) == 4
    assert "no plan made" in refused[0]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"expected the directory of a run that has ended, but there is no results.json"
    ):
        existing.read([tmp_path])


def test_a_sweep_ends_with_a_page(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs[0].parent
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    SweepReport("targetprop.compare.existing.sweep_page").on_multirun_end(config)
    assert (folder / "page.html").is_file()
    assert f"Page: {folder / 'page.html'}" in capsys.readouterr().out


def test_a_sweep_without_the_packages_of_the_page_says_so_and_ends_well(
    runs: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(runs[0].parent)}}})
    SweepReport("targetprop.compare.existing.sweep_page").on_multirun_end(config)
    said = capsys.readouterr().out
    assert 'pip install "targetprop[compare]"' in said
    assert len(said.splitlines()) == 1


def test_a_package_that_is_not_there_is_one_line_before_anything_runs(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    chosen = ["--rules", "backprop", "dtp", "--networks", "tiny_vgg", "--data", "digits", "--seeds", "1", "2"]
    said = commands("compare", *chosen)
    assert said.startswith("Error: the page needs the package altair")
    assert not commands.made
