"""Published experiments: each computes, writes and goes on; and what their papers say of them shows."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from targetprop.algorithms import named
from targetprop.app.overrides import check_overrides
from targetprop.app.run import check_configuration
from targetprop.compare import plan_file
from targetprop.learner import Learner
from targetprop.published import ernoult, runs, toy
from targetprop.published.cli import EXPERIMENTS, main
from targetprop.published.comparisons import PlanTable
from targetprop.published.experiment import Rows

HERE = [name for name, each in EXPERIMENTS.items() if not isinstance(each, runs.RunTable | PlanTable)]
"""Experiments that compute in this process."""
TABLES = {name: each for name, each in EXPERIMENTS.items() if isinstance(each, runs.RunTable)}
COMPARISONS = {name: each for name, each in EXPERIMENTS.items() if isinstance(each, PlanTable)}


def first_at_least(names: Iterable[str]) -> list[Any]:
    """The others are slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow if number else ()) for number, name in enumerate(names)]


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", HERE)
def test_a_table_and_pictures_are_written_and_parts_are_kept(name: str, tmp_path: Path) -> None:
    main([name, "--quick", "--folder", str(tmp_path)])
    rows = table(tmp_path, name)
    assert len({tuple(row) for row in rows}) == 1
    assert len(rows) > 1
    assert all(row.values() for row in rows)
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (tmp_path / f"{name}.svg").read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    (lost, *others) = kept
    lost.unlink()
    main([name, "--quick", "--folder", str(tmp_path)])
    assert lost.is_file()
    assert {path: path.stat().st_mtime_ns for path in others} == {path: kept[path] for path in others}
    assert table(tmp_path, name) == rows  # also what was made anew


def test_parts_of_other_settings_are_refused(tmp_path: Path) -> None:
    main(["ernoult_4.2", "--quick", "--folder", str(tmp_path)])
    part = tmp_path / "parts" / "seed_123.json"
    part.write_text(part.read_text().replace('"batch": 16', '"batch": 17'))
    with pytest.raises(SystemExit, match=r"^Error: \S+seed_123\.json: it was made with other settings"):
        main(["ernoult_4.2", "--quick", "--folder", str(tmp_path)])


def test_an_unknown_name_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^Error: figure: unknown value 'ernoult_42'. Did you mean 'ernoult_4.2'"):
        main(["ernoult_42"])
    main([])
    assert all(name in capsys.readouterr().out for name in ("ernoult_4.2",))


def test_missing_data_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(SystemExit, match=r"^Error: [^\n]*cifar-10-batches-py[^\n]*$"):
        main(["ernoult_4.2", "--data-dir", str(tmp_path / "data"), "--folder", str(tmp_path / "out")])


def test_seeds_replace_the_published_ones(tmp_path: Path) -> None:
    main(["meulemans_output_space", "--quick", "--seeds", "5", "--folder", str(tmp_path)])
    assert {row["seed"] for row in table(tmp_path, "meulemans_output_space")} == {"5"}


def degrees(rows: Rows, block: int) -> float:
    return float(str(next(row["degrees"] for row in rows if str(row["block"]).startswith(f"{block} "))))


def test_transposed_weights_give_updates_near_backprop_and_random_ones_do_not() -> None:
    """Theorem 4.3, on the least network."""
    setting = ernoult.quick(ernoult.VGG)
    torch.manual_seed(0)
    x, y = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    found = {
        kind: ernoult.compared(ernoult.trained(setting, kind, x, 1), x, y, kind, 1)
        for kind in ("L-DRL, init", "L-DRL, symmetric")
    }
    assert degrees(found["L-DRL, symmetric"], 1) < 10 < 60 < degrees(found["L-DRL, init"], 1)
    assert degrees(found["L-DRL, init"], 3) < 1  # the output follows its own target, whatever the feedback


def test_feedback_that_does_not_learn_stays_as_it_is() -> None:
    setting = ernoult.quick(ernoult.LENET)
    x = torch.randn(16, 1, 8, 8)
    first, second = (ernoult.trained(setting, kind, x, 1) for kind in ("L-DRL, init", "L-DRL"))
    old, new = (ernoult.weights_of(learner, 1, 0) for learner in (first, second))
    assert ernoult.weights_of(ernoult.l_drl(setting, x, 1), 1, 0) == old != new


def test_gauss_newton_targets_leave_nothing_in_the_null_space_and_dtp_does() -> None:
    """Meulemans et al. 2020, figure 2, in the limit that DRL aims at."""
    x, y = toy.examples(6, 2, 4, 1)
    exact = Learner(toy.student(6, 2, 1), named("gauss_newton"))
    dtp = Learner(toy.student(6, 2, 1), named("meulemans_dtp")).double()
    assert max(toy.null_shares(exact, x[:1], y[:1])) < 1e-7
    shares = toy.null_shares(dtp, x[:1], y[:1])
    assert min(shares[:2]) > 0.05
    assert shares[2] < 1e-7  # of the output layer


def test_a_step_of_gauss_newton_targets_in_a_linear_network_moves_the_output_to_the_target() -> None:
    x, y = (each[:1] for each in toy.examples(4, 2, 2, 3))
    network = toy.student(4, 2, 3, bias=False)
    for block in (network[0], network[1]):
        assert isinstance(block, nn.Sequential)
        block[1] = nn.Identity()
    learner = Learner(network, named("gauss_newton"))
    moved = toy.OutputSpace()._after(learner, x, toy.updates(learner, x, y)) - network(x)
    aim = (y - network(x)).detach()
    assert torch.cosine_similarity(moved, aim).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", first_at_least(TABLES))
def test_every_run_of_a_table_composes(name: str) -> None:
    for overrides in TABLES[name].runs.values():
        config = check_overrides([*overrides, "output_dir=nowhere"])
        check_configuration(config)
        check_configuration(check_overrides([*overrides, *runs.QUICK, "output_dir=nowhere"]))


@pytest.mark.parametrize("name", first_at_least(COMPARISONS))
def test_every_plan_composes(name: str) -> None:
    path = Path(runs.__file__).parent / "plans" / f"{COMPARISONS[name].plan}.yaml"
    plan_file.check_composes(plan_file.load(path))


def test_angles_are_means_over_epochs(tmp_path: Path) -> None:
    lines = ["step,train/loss,angle/block1,gnt_angle/block1", "0,,10,40", "1,,20,", "1,.5,,", "2,,50,80", "3,.4,,"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    found = runs.angles_by_epoch(tmp_path / "metrics.csv")
    assert {(row["epoch"], row["against"]): row["degrees"] for row in found} == {
        (1, "backprop"): 15,
        (1, "Gauss-Newton targets"): 40,
        (2, "backprop"): 50,
        (2, "Gauss-Newton targets"): 80,
    }
    assert {row["block"] for row in found} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["meulemans_angles_mnist", "shibuya_table", "shibuya_comparison"])
def test_runs_are_made_kept_and_drawn(name: str, tmp_path: Path) -> None:
    main([name, "--quick", "--folder", str(tmp_path)])
    rows = table(tmp_path, name)
    value = "degrees" if "angles" in name else "test"
    assert all(0 <= float(row[value]) <= 180 for row in rows)
    assert any(float(row[value]) > 0 for row in rows)
    main([name, "--quick", "--folder", str(tmp_path)])  # which makes no run anew
    assert table(tmp_path, name) == rows
