"""Every benchmark runs on a tiny setting and writes a sane record; nothing about time is asserted."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from targetprop.app.objects import build
from targetprop.app.run import build_module
from targetprop.data import Images, Splits, cifar10

Run = Callable[..., dict[str, Any]]
TINY = ["--network", "tiny", "--batch", "2"]
ONCE = ["--repeats", "1"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a script's main with one thread, and return its record."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))

    def _run(script: str, *arguments: str) -> dict[str, Any]:
        path = tmp_path / "record.json"
        importlib.import_module(script).main([*arguments, "--threads", "1", "--json", str(path)])
        record: dict[str, Any] = json.loads(path.read_text())
        assert record["machine"]["threads"] == 1
        assert record["machine"]["torch"] == torch.__version__
        assert str(tmp_path) not in path.read_text()  # records are committed
        return record

    return _run


@pytest.fixture
def _cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8)
    images = Images(pixels, torch.arange(40) % 10, tuple("abcdefghij"))
    monkeypatch.setattr(cifar10, "load", lambda data_dir, download: Splits(images, images))


def positive(*values: float) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values)


def test_step_time(run: Run) -> None:
    modes = ["autograd", "delta_mirror"]
    record = run("step_time", *TINY, *ONCE, "--return-memory", "--modes", *modes)
    assert record["settings"]["return_memory"]
    assert list(record["medians"]) == ["backprop, textbook", "backprop, strict", *modes]
    assert positive(*record["medians"].values())


def test_measures_cost(run: Run) -> None:
    record = run("measures_cost", *TINY, *ONCE, "--measures", "rank", "gauss_newton")
    assert list(record["medians"]) == ["backprop, textbook", "rank", "gauss_newton"]
    assert positive(*record["medians"].values())


@pytest.mark.parametrize("network", ["full", "small", "lenet", "mlp", "resnet18", "tiny"])
def test_published_settings_fit_every_network(run: Run, network: str) -> None:
    cases = importlib.import_module("cases")
    for mode in cases.MODES:
        cases.learner_of(network, mode, torch.device("cpu"))


@pytest.mark.usefixtures("_cifar")
def test_epoch_cost(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("epoch_cost")
    monkeypatch.setattr(script, "apart", lambda network, options, arguments: script.measured(network, options))
    sizes = ["--networks", "tiny", "--batch", "12", "--epochs", "2", "--stretch", "2", "--profiled", "3"]
    (row,) = run("epoch_cost", *sizes, "--processes", "2")["rows"]
    assert positive(row["ratio"], *row["step_seconds"].values())
    first, _ = row["processes"]
    assert len(first["epoch_ratios"]) == 2
    assert positive(*first["first_step"].values(), *first["losses"].values(), *first["efforts"])
    strict, amortised = row["parts"].values()
    assert list(strict) == ["forward", "optimiser", "backward, loss and the rest"]
    assert set(amortised) == {
        "forward", "feedback learning", "carrying targets", "forward gradients", "optimiser", "loss and the rest"
    }  # fmt: skip
    assert positive(*strict.values(), *amortised.values())


def test_scaling(run: Run, tmp_path: Path) -> None:
    sizes = ["--batch", "2", "4", "--width", "0.1", "--depth", "1", "2", "--thread-counts", "1", "--base-batch", "2"]
    modes = ["--modes", "no feedback learning"]
    record = run("scaling", *ONCE, *sizes, *modes, "--picture", str(tmp_path / "scaling.png"))
    assert {axis: len(points) for axis, points in record["axes"].items()} == {
        "batch": 4, "width": 2, "depth": 4, "threads": 2
    }  # fmt: skip
    assert (tmp_path / "scaling.png").stat().st_size > 1000


def test_ceiling(run: Run) -> None:
    record = run("ceiling", *TINY, *ONCE)
    assert len(record["gflops"]) == 2 * 3
    assert record["ceiling_gflops"] == max(row["gflops"] for row in record["gflops"])
    assert min(row["gflops"] for row in record["gflops"]) < record["library_gflops"] < record["ceiling_gflops"]
    # 4 passes x 20 updates x 2 images through conv2 (4 to 8 channels, 3x3, at 16x16) and the head (8x8x8 to 10).
    assert record["feedback_multiply_adds"] == 4 * 20 * 2 * (16 * 16 * 4 * 8 * 9 + 8 * 8 * 8 * 10)


@pytest.mark.usefixtures("_cifar")
def test_cost_alignment(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "cost_alignment.png"
    sizes = ["--budgets", "0.12", "2", "--modes", "closed_form", "--steps", "4", "--every", "2"]
    record = run("cost_alignment", *TINY, *sizes, "--picture", str(picture))
    strict, cheap, dear, sampled = record["rows"]
    assert (strict["cost"], strict["angles"]) == (1, [])
    assert 1 < cheap["cost"] < dear["cost"] < sampled["cost"]
    assert all(0 <= angle <= 180 for row in (cheap, dear, sampled) for angle in row["angles"])
    assert picture.stat().st_size > 1000


def test_tracking(run: Run, tmp_path: Path) -> None:
    tables = tmp_path / "tracking.md"
    small = ["--quick", "--networks", "mlp", "--activations", "elu", "--sigmas", "0.05", "--epochs", "0", "1"]
    record = run("tracking", *small, "--batch", "16", "--markdown", str(tables))
    columns = record["columns"].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in record["rows"]]
    assert len(rows) == 2 * 3 * 2  # epochs, blocks and styles
    assert all(0 <= float(row["weights angle"]) < 5 and abs(float(row["weights norm"])) < 10 for row in rows)
    assert tables.read_text().count("| mlp | none | elu | 0 | matched | held | 0.05 |") == 5


def test_cost_alignment_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match=r"CIFAR-10.*DATA_DIR"):
        run("cost_alignment", *TINY)


def test_data_throughput(run: Run) -> None:
    record = run("data_throughput", *TINY, *ONCE, "--images", "10")
    assert positive(*record["images_per_second"].values())
    assert set(record["images_per_second"]) >= {
        "loader, augmented",
        "loader, plain",
        "backprop, strict",
        "amortised_dtp",
    }


def test_lightning_overhead(run: Run) -> None:
    record = run("lightning_overhead", *TINY, *ONCE, "--steps", "2")
    assert list(record["medians"]) == ["plain loop", "Trainer, callbacks=default", "Trainer, callbacks=none"]
    assert positive(*record["medians"].values())


def test_memory(run: Run) -> None:
    record = run("memory", *TINY, "--modes", "closed_form", "amortised_dtp")
    assert list(record["bytes"]) == ["backprop, textbook", "backprop, strict", "closed_form", "amortised_dtp"]
    image = 2 * 3 * 32 * 32 * 4
    for peak in record["bytes"].values():
        assert image < peak["activations"] <= peak["total"] < 100 * image


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc")
def test_imagenet32_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("imagenet32_memory")
    monkeypatch.setattr(script, "apart", lambda step, data_dir: step(data_dir))  # new processes import for seconds
    record = run("imagenet32_memory", "--images", "5000")
    convert, train = record["bytes"]["convert"], record["bytes"]["train"]
    assert record["mapped"] == 5500 * (3072 + 8)
    assert train["file"] > 0.9 * 3072 * 5000  # every image was read from the file
    assert max(convert["private"], train["private"]) < record["mapped"] + 30e6


def test_live_storages_are_counted_once_and_while_they_live(run: Run) -> None:
    memory = importlib.import_module("memory")
    before, kept = torch.ones(1000), []
    with memory.LiveStorages() as storages:
        for _ in range(5):
            twice = before * 2  # 4000 bytes, which replace those of the last round when they are there
            before.add_(twice.view(10, 100).flatten())
        kept.append(twice + 1)
        del twice
    assert storages.peak() == memory.Peak(total=8000, activations=8000)
    with memory.LiveStorages() as storages:
        kept.append(before * 2)
        before.sum()
    assert storages.peak() == memory.Peak(total=4004, activations=4)


@pytest.mark.usefixtures("_cifar")
def test_gpu_report_on_a_cpu(run: Run) -> None:
    sizes = ["--batches", "2", "--matmul", "32", "--training-steps", "2", "--checked-batch", "2"]
    record = run("gpu", "--device", "cpu", "--network", "tiny", "--checked", "tiny", *sizes, *ONCE)
    parts = record["parts"]
    assert record["failed"] == []
    assert parts["correctness"]["passed"]
    assert set(parts["steps, batch 2, ieee"]) >= {"closed_form", "amortised_dtp"}
    assert positive(*parts["memory, batch 2"]["bytes"].values())
    assert 0 <= parts["training"]["amortised_dtp"]["test_accuracy"] <= 1


def test_gpu_report_goes_on_after_a_part_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = importlib.import_module("gpu")
    options = gpu.parser(None).parse_args([])
    report = gpu.Report(options)
    assert report.add("broken", lambda: 1 / 0) == {}
    assert report.add("wrong", lambda: {"passed": False}) == {"passed": False, "part_seconds": pytest.approx(0, abs=1)}
    assert report.failed == ["broken", "wrong"]
    assert "ZeroDivisionError" in report.parts["broken"]["error"]


def made_run(folder: Path, seed: int, accuracy: float) -> str:
    """A directory as a run of two epochs leaves it; in training it was better by a tenth of its seed."""
    (folder / "csv").mkdir(parents=True)
    (folder / "csv" / "metrics.csv").write_text(
        "step,epoch,angle/block2,angle/block1,train/loss,train/accuracy,val/accuracy\n"
        f"0,,1.0,9.0,,,\n5,,,,,,0.4\n5,0,,,1.0,{accuracy},\n7,,2.0,8.0,,,\n9,,4.0,6.0,,,\n"
        f"11,,,,,,0.5\n11,1,,,0.9,{accuracy + 0.1 * seed},\n12,2,,,,,0.5\n"
    )
    (folder / "config.yaml").write_text(f"seed: {seed}\n")
    parts = {
        name: {"accuracy": value, "per_class": [value]} for name, value in (("validation", 0.5), ("test", accuracy))
    }
    (folder / "results.json").write_text(json.dumps({**parts, "epoch_seconds": [1.0, 2.004]}))
    return str(folder)


@pytest.mark.usefixtures("run")
def test_paired_runs_are_compared_by_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = [made_run(tmp_path / "a2", 2, 0.64), made_run(tmp_path / "a1", 1, 0.62)]
    second = [made_run(tmp_path / "b1", 1, 0.61), made_run(tmp_path / "b2", 2, 0.61)]
    main = importlib.import_module("runs").main
    record, picture = tmp_path / "pairs.json", tmp_path / "pairs.png"
    compared = ["pairs", "--first", *first, "--second", *second, "--step-ms", "2", "1"]
    main([*compared, "--json", str(record), "--picture", str(picture)])
    written = json.loads(record.read_text())
    assert written["difference"] == pytest.approx(2)
    assert written["half_interval"] == pytest.approx(12.706, abs=0.01)
    assert written["first"][0] == {
        "seed": 1, "test": 0.62, "validation": 0.5, "training": pytest.approx(0.72), "epoch_steps": [6, 12],
        "epoch_validation": [0.4, 0.5], "epoch_seconds": [1.0, 2.004],
        "epoch_angles": {"1": {"block1": 9, "block2": 1}, "2": {"block1": 7, "block2": 3}},
    }  # fmt: skip
    assert picture.stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "+2.00" in printed
    assert "84.00" in printed  # training accuracy of a run
    with pytest.raises(SystemExit, match="same seeds"):
        main(["pairs", "--first", first[0], "--second", *second, "--step-ms", "2", "1"])


@pytest.mark.usefixtures("run")
def test_runs_are_recorded_kind_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [made_run(tmp_path / name, seed, accuracy) for name, seed, accuracy in (("a", 1, 0.6), ("b", 2, 0.62))]
    record, picture = tmp_path / "records.json", tmp_path / "records.png"
    main = importlib.import_module("runs").main
    main(["record", "--runs", "mine", *runs, "--json", str(record), "--picture", str(picture)])
    assert "61.00 +- 1.41" in capsys.readouterr().out
    written, _ = json.loads(record.read_text())["mine"]
    assert written["test"] == written["test_per_class"][0] == 0.6
    assert written["epoch_seconds"] == [1.0, 2.0]
    assert written["epochs"]["val/accuracy"] == [0.4, 0.5]  # without that of the final evaluation
    assert picture.stat().st_size > 1000


@pytest.mark.usefixtures("run")
def test_angles_are_tabulated_epoch_by_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(made_run(tmp_path / "a", 1, 0.6))
    main = importlib.import_module("runs").main
    for path in (folder, folder / "csv" / "metrics.csv"):
        main(["angles", str(path)])
        rows = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
        assert [[cell.strip() for cell in row] for row in rows] == [["1", "9.0", "1.0"], ["2", "7.0", "3.0"]]


def test_runs(run: Run) -> None:
    small = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "model.hparams.feedback_training_iterations=1"]
    record = run("runs", "repeat", "--seeds", "1", "--first-seed", "4", "network.hparams.channels=[4,6]", *small)
    (measured,) = record["runs"]
    assert measured["seed"] == 4
    assert 0 <= measured["accuracy"] <= 1
    assert measured["seconds"] > 0
    assert measured["host_bytes"] > 1e7


def test_runs_are_summarised_by_mean_and_standard_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    summary_of = importlib.import_module("runs").summary_of
    rows = [{"accuracy": a, "seconds": 2.0, "host_bytes": 1.0, "gpu_bytes": 0.0} for a in (0.4, 0.6)]
    assert summary_of(rows)["accuracy"] == {"mean": pytest.approx(0.5), "sd": pytest.approx(0.02**0.5)}
    assert summary_of(rows[:1])["seconds"] == {"mean": 2.0, "sd": 0.0}


@pytest.mark.slow
def test_layer_parallel(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "step.png"
    record = run("layer_parallel", *TINY, *ONCE, "--picture", str(picture))
    for mode in record["modes"].values():
        assert positive(*mode["pair_seconds"], *mode["feedback_seconds"].values(), *mode["step_seconds"].values())
        assert sorted(mode["shares"]) == [["feedback 2"], ["feedback 3"]]
        assert mode["predicted"][0]["images"] == mode["predicted"][0]["layers_only"] == 1
        assert all(row["groups"] * row["columns"] == row["processes"] for row in mode["predicted"])
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize("command", [[], ["repeat"], ["record"], ["pairs"], ["angles"], ["family"]])
def test_help_for_runs(run: Run, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("runs").main([*command, "--help"])
    assert ended.value.code == 0
    assert "accurac" in capsys.readouterr().out or command == ["angles"]


@pytest.mark.slow
def test_family(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = importlib.import_module("runs")
    monkeypatch.setattr(runs, "COMMON", "datamodule=digits trainer.limit_train_batches=2")
    monkeypatch.setattr(runs, "VGG", "network=tiny_vgg network.hparams.channels=[4,6]")
    monkeypatch.setattr(runs, "FAMILY", ("model=delta_mirror", "model=dtp model.hparams.noise=-1"))
    works, fails = run("runs", "family", "--epochs", "1", "--data", str(tmp_path))["runs"]
    assert 0 <= works["test"] <= 1
    assert len(works["angles"]) == 3
    assert "noise" in fails["error"]
    monkeypatch.setattr(runs, "member", lambda command, options: {"command": command, "error": "run again"})
    record = tmp_path / "earlier.json"
    record.write_text(json.dumps({"runs": [works]}))
    runs.main(["family", "--resume", "--json", str(record)])
    assert json.loads(record.read_text())["runs"] == [works, {"command": fails["command"], "error": "run again"}]


def test_commands_of_the_family_fit_their_networks(run: Run) -> None:
    """Nothing is trained: the module is built for images of CIFAR-10."""
    runs, cli = importlib.import_module("runs"), importlib.import_module("targetprop.app.overrides")
    for command in runs.FAMILY:
        whole = f"{command} {runs.COMMON} {'' if 'network=' in command else runs.VGG}".split()
        images = importlib.import_module("cases").random_images(20)
        datamodule = build(cli.check_overrides(whole).datamodule, load=lambda *_: Splits(images, images))  # noqa: B023
        build_module(cli.check_overrides(whole), datamodule)


def test_two_editions_take_turns(run: Run) -> None:
    tree = str(Path(__file__).parents[1])
    record = run("compare_editions", tree, tree, "--networks", "tiny", "--batch", "2", "--repeats", "3")
    assert [row["mode"] for row in record["rows"]] == ["backprop", "delta_mirror", "closed_form"]
    for row in record["rows"]:
        before, after = row["gradient_norms"]
        assert before == after > 0  # the same weights, batch and steps
        assert positive(row["ratio"], *row["quartiles"], *row["medians"].values())
        assert [len(each) for each in row["seconds"].values()] == [3, 3]


@pytest.mark.slow
def test_busy(run: Run) -> None:
    record = run("busy", "--busy", "1", "--repeats", "1", "--batches", "1", "--policies", "own")
    (row,) = record["rows"]
    assert (row["network"], row["policy"]) == ("tiny", "own")
    assert positive(row["rest"], row["busy"])
    assert row["ratio"] == row["busy"] / row["rest"]


@pytest.mark.usefixtures("run")
def test_the_house_is_printed_in_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("house").main([])
    printed = capsys.readouterr().out
    assert "longest chain, modules" in printed
    assert "rooms by floor" in printed
