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
    modes = ["textbook", "amortised"]
    record = run("step_time", *TINY, *ONCE, "--return-memory", "--modes", *modes)
    assert record["settings"]["return_memory"]
    assert list(record["medians"]) == ["backprop, textbook", "backprop, strict", *modes]
    assert positive(*record["medians"].values())


@pytest.mark.parametrize("network", ["full", "small", "lenet", "mlp", "tiny"])
def test_published_settings_fit_every_network(run: Run, network: str) -> None:
    cases = importlib.import_module("cases")
    for mode in cases.MODES:
        cases.learner_of(network, mode, torch.device("cpu"))


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
    sizes = ["--budgets", "0.12", "2", "--modes", "expected", "--steps", "4", "--every", "2"]
    record = run("cost_alignment", *TINY, *sizes, "--picture", str(picture))
    strict, cheap, dear, expected = record["rows"]
    assert (strict["cost"], strict["angles"]) == (1, [])
    assert 1 < cheap["cost"] < dear["cost"] < expected["cost"]
    assert all(0 <= angle <= 180 for row in (cheap, dear, expected) for angle in row["angles"])
    assert picture.stat().st_size > 1000


def test_cost_alignment_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match=r"CIFAR-10.*DATA_DIR"):
        run("cost_alignment", *TINY)


def test_data_throughput(run: Run) -> None:
    record = run("data_throughput", *TINY, *ONCE, "--images", "10")
    assert positive(*record["images_per_second"].values())
    assert set(record["images_per_second"]) >= {"loader, augmented", "loader, plain", "backprop, strict", "amortised"}


def test_lightning_overhead(run: Run) -> None:
    record = run("lightning_overhead", *TINY, *ONCE, "--steps", "2")
    assert list(record["medians"]) == ["plain loop", "Trainer, callbacks=default", "Trainer, callbacks=none"]
    assert positive(*record["medians"].values())


def test_memory(run: Run) -> None:
    record = run("memory", *TINY, "--modes", "exact", "amortised")
    assert list(record["bytes"]) == ["backprop, textbook", "backprop, strict", "exact", "amortised"]
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
    assert set(parts["steps, batch 2, ieee"]) >= {"exact", "expected", "amortised"}
    assert positive(*parts["memory, batch 2"]["bytes"].values())
    assert 0 <= parts["training"]["amortised"]["test_accuracy"] <= 1


def test_gpu_report_goes_on_after_a_part_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = importlib.import_module("gpu")
    options = gpu.parser(None).parse_args([])
    report = gpu.Report(options)
    assert report.add("broken", lambda: 1 / 0) == {}
    assert report.add("wrong", lambda: {"passed": False}) == {"passed": False, "part_seconds": pytest.approx(0, abs=1)}
    assert report.failed == ["broken", "wrong"]
    assert "ZeroDivisionError" in report.parts["broken"]["error"]


def test_neglected_terms_are_small_where_the_diagonal_form_is_used(run: Run) -> None:
    rows = {row["activation"]: row for row in run("neglected", "--sigmas", "0.1")["rows"]}
    assert max(abs(each) for each in rows["identity"]["initialised"]) < 1e-6
    assert rows["elu"]["initialised"][1] < 0.05 < rows["relu"]["initialised"][1]


@pytest.mark.usefixtures("run")
def test_paired_runs_are_compared_by_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def made(name: str, seed: int, accuracy: float) -> str:
        folder = tmp_path / name
        (folder / "csv").mkdir(parents=True)
        (folder / "csv" / "metrics.csv").write_text(
            "step,epoch,angle/block1,train/loss,train/accuracy,val/accuracy\n"
            f"0,,9.0,,,\n5,,,,,0.5\n5,0,,1.0,{accuracy + 0.1 * seed},\n6,1,,,,0.5\n"
        )
        (folder / "config.yaml").write_text(f"seed: {seed}\n")
        final = {"validation": {"accuracy": 0.5}, "test": {"accuracy": accuracy}, "epoch_seconds": [1.0]}
        (folder / "results.json").write_text(json.dumps(final))
        return str(folder)

    first = [made("a2", 2, 0.64), made("a1", 1, 0.62)]
    second = [made("b1", 1, 0.61), made("b2", 2, 0.61)]
    paired = importlib.import_module("paired_runs")
    record, picture = tmp_path / "pairs.json", tmp_path / "pairs.png"
    paired.main(
        [
            "--first",
            *first,
            "--second",
            *second,
            "--step-ms",
            "2",
            "1",
            "--json",
            str(record),
            "--picture",
            str(picture),
        ]
    )
    assert json.loads(record.read_text())["difference"] == pytest.approx(2)
    assert json.loads(record.read_text())["half_interval"] == pytest.approx(12.706, abs=0.01)
    assert picture.stat().st_size > 0
    printed = capsys.readouterr().out
    assert "+2.00" in printed
    assert "81.00" in printed  # training accuracy of a run
    with pytest.raises(SystemExit, match="same seeds"):
        paired.main(["--first", first[0], "--second", *second, "--step-ms", "2", "1"])


def test_runs(run: Run) -> None:
    small = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "model.hparams.feedback_training_iterations=1"]
    record = run("runs", "--seeds", "1", "--first-seed", "4", "network.hparams.channels=[4,6]", *small)
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


def test_layer_parallel(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "step.png"
    record = run("layer_parallel", *TINY, *ONCE, "--picture", str(picture))
    for mode in record["modes"].values():
        assert positive(*mode["pair_seconds"], *mode["feedback_seconds"].values(), *mode["step_seconds"].values())
        assert sorted(mode["shares"]) == [["feedback 2"], ["feedback 3"]]
        assert mode["predicted"][0]["images"] == mode["predicted"][0]["layers_only"] == 1
        assert all(row["groups"] * row["columns"] == row["processes"] for row in mode["predicted"])
    assert picture.stat().st_size > 5000


def test_family(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = importlib.import_module("family")
    monkeypatch.setattr(family, "COMMON", "datamodule=digits trainer.limit_train_batches=2")
    monkeypatch.setattr(family, "VGG", "network=tiny_vgg network.hparams.channels=[4,6]")
    monkeypatch.setattr(family, "COMMANDS", ("model=amortised_dtp", "model=dtp model.hparams.noise=-1"))
    works, fails = run("family", "--epochs", "1", "--data", str(tmp_path))["runs"]
    assert 0 <= works["test"] <= 1
    assert len(works["angles"]) == 3
    assert "noise" in fails["error"]
    monkeypatch.setattr(family, "run", lambda command, options: {"command": command, "error": "run again"})
    record = tmp_path / "earlier.json"
    record.write_text(json.dumps({"runs": [works]}))
    family.main(["--resume", "--json", str(record)])
    assert json.loads(record.read_text())["runs"] == [works, {"command": fails["command"], "error": "run again"}]
