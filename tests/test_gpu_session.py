"""A session with a GPU, on a CPU: what travels there arrives, runs are stopped, come home, travel again and go on."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

STAND_IN = """
import json, shutil, sys, time
from pathlib import Path
settings = dict(each.split("=", 1) for each in sys.argv[1:])
folder = Path(settings["hydra.run.dir"])
(folder / "command.json").write_text(json.dumps(settings))
if settings["model"] == "backprop":
    sys.exit(3)
if "ckpt_path" in settings:
    (folder / "results.json").write_text("{}")
else:
    (folder / "checkpoints").mkdir()
    shutil.copy(Path(__file__).with_name("last.ckpt"), folder / "checkpoints" / "last.ckpt")
    time.sleep(100)
"""
"""Of main.py: it makes a checkpoint and never ends, goes on from one and ends, or fails."""
UNPACK = """
import sys
from pathlib import Path
Path(sys.argv[1]).mkdir(exist_ok=True)
halves = [Path(sys.argv[2], name).read_bytes() for name in ("half_a", "half_b")]
Path(sys.argv[1], "images").write_bytes(b"".join(halves))
"""


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("gpu_session")


@pytest.fixture
def stand_in(session: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree with a main.py that ends when it is wanted to, and halves of data, all of which are published."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "main.py").write_text(STAND_IN)
    torch.save({"epoch": 6}, tree / "last.ckpt")
    (tree / "unpack_it.py").write_text(UNPACK)
    for half in "ab":
        (tree / f"half_{half}").write_text(half * 700_000)
    monkeypatch.setattr(session, "ROOT", tree)
    monkeypatch.setattr(session, "locate", lambda *_, **__: SimpleNamespace(note=""))
    return tree


def record(out: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{stage}.json").read_text())
    assert found["machine"]["torch"] == torch.__version__
    assert found["seconds"] >= 0
    return found


def test_what_is_split_is_joined_again(session: ModuleType, tmp_path: Path) -> None:
    content = bytes(range(250)) * 5
    assert len(session.split(content, tmp_path, "x", 100)) == 13
    assert session.joined(tmp_path, "x") == content
    assert len(session.split(content[:150], tmp_path, "x", 100)) == 2
    assert session.joined(tmp_path, "x") == content[:150]


def test_runs_stop_come_home_and_go_on(
    session: ModuleType, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried, out, home = tmp_path / "carried", tmp_path / "out", tmp_path / "home"
    data = ["--data", str(stand_in / "half_a"), str(stand_in / "half_b"), "--unpacker", str(stand_in / "unpack_it.py")]
    small = ["--most", "1", "--packages", "omegaconf"]
    wanted = ["--runs", "backprop:1", "dtp:5", "--jobs", "2", "--device", "cpu"]
    monkeypatch.setattr(session, "PART", 1000)
    session.main(["pack", str(carried), *data, *small])
    *_, latest = sorted(carried.iterdir())
    assert latest.name > "1"

    first = ["--store", str(tmp_path / "there")]
    latest.rename(tmp_path / "later")
    with pytest.raises(SystemExit):
        session.main(["train", str(carried), str(out), *first, *wanted])
    assert "has not arrived" in record(out, "train")["error"]
    session.main(["keep", str(carried), str(out), *first, "--device", "cpu"])
    assert len(record(out, "keep")["missing"]) == 1
    (tmp_path / "later").rename(latest)
    with pytest.raises(SystemExit):  # backprop fails, and the other one goes on without it
        session.main(["train", str(carried), str(out), *first, *wanted, "--limit", "6"])
    found = record(out, "train")
    assert found["runs"]["backprop_1"]["state"] == "failed, exit status 3"
    assert found["runs"]["dtp_5"]["state"] == "stopped"
    assert found["runs"]["dtp_5"]["epochs"] == 7
    assert found["parts"] > 1
    assert found["machine"]["commit"] == "unknown", "the stand-in is no repository"
    assert (tmp_path / "there" / "data" / "images").stat().st_size == 1_400_000
    assert (tmp_path / "there" / "site" / "omegaconf" / "__init__.py").is_file()

    session.main(["collect", str(out), str(home)])
    session.main(["pack", str(carried), *data, *small, "--runs", str(home)])
    second = ["--store", str(tmp_path / "there again"), "--rate", "0.7"]
    session.main(["train", str(carried), str(out), *second, *wanted[:1], "dtp:5", *wanted[3:], "--limit", "60"])
    found = record(out, "train")["runs"]["dtp_5"]
    assert (found["state"], found["epochs_before"], found["results"]) == ("finished", 7, {})
    session.main(["collect", str(out), str(home)])
    assert session.is_finished(home / "dtp_5")
    settings = json.loads((home / "dtp_5" / "2" / "results.json").with_name("command.json").read_text())
    assert float(settings["model.hparams.f_optim.lr"]) == pytest.approx(1)
    assert settings["ckpt_path"].endswith("dtp_5/1/checkpoints/last.ckpt")
    session.main(["train", str(carried), str(out), *second, "--runs", "dtp:5", "--device", "cpu"])
    assert record(out, "train")["runs"] == {}, "it is finished"


def test_checkpoints_that_do_not_fit_stay_and_are_named(session: ModuleType, tmp_path: Path) -> None:
    for name, size in (("a_1", 500_000), ("b_1", 900_000), ("c_1", 500_000)):
        (tmp_path / name / "1" / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "1" / "checkpoints" / "last.ckpt").write_bytes(bytes(size))
        (tmp_path / name / "1" / "config.yaml").write_text("seed: 1")
    files, left_out = session.files_of(tmp_path, 1.1e6)
    assert [name[0] for name in files if name.endswith("ckpt")] == ["a", "c"]
    assert left_out == ["b_1"]
    assert sum(name.endswith("yaml") for name in files) == 3


def test_a_part_of_another_writing_is_refused(session: ModuleType, tmp_path: Path) -> None:
    session.split(b"parts", tmp_path, "runs.tar", 2)
    (tmp_path / "runs.json").write_text(json.dumps({"md5": session.md5(b"other parts")}))
    with pytest.raises(SystemExit, match="do not belong together"):
        session.main(["collect", str(tmp_path), str(tmp_path / "home")])


def test_a_stage_that_cannot_work_leaves_a_record(session: ModuleType, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("it would work")
    for stage in ("tests", "times", "train"):
        with pytest.raises(SystemExit):
            session.main([stage, str(tmp_path), str(tmp_path / "out"), "--store", str(tmp_path / "there")])
        assert "no GPU" in record(tmp_path / "out", stage)["error"]


@pytest.mark.slow
def test_the_whole_session_with_a_tiny_network(session: ModuleType, tmp_path: Path) -> None:
    carried, out, home = tmp_path / "carried", tmp_path / "out", tmp_path / "home"
    there = [str(carried), str(out), "--device", "cpu"]
    stores = [["--store", str(tmp_path / name)] for name in ("first", "second")]
    session.main(["pack", str(carried)])
    session.main(["tests", *there, *stores[0]])
    assert "skipped" in record(out, "tests")["said"]
    tiny = "--network tiny --checked tiny --batches 2 --matmul 32 --training-steps 2 --checked-batch 2 --repeats 1"
    session.main(["times", *there, *stores[0], "--sizes", f"{tiny} --threads 1"])
    assert json.loads((out / "gpu.json").read_text())["failed"] == []

    runs = ["--runs", "backprop:1", "dtp:1", "amortised_dtp:1", "--jobs", "3", "--setting", "scheduler=cosine"]
    runs += ["--rate", "0.01"]
    session.main(["train", *there, *stores[0], *runs, "--limit", "100", "--override", "trainer.max_epochs=9999"])
    states = record(out, "train")["runs"]
    assert all(run["state"] == "stopped" and run["epochs"] > 0 for run in states.values()), states
    session.main(["collect", str(out), str(home)])
    session.main(["pack", str(carried), "--runs", str(home)])
    for name, before in states.items():
        longer = ["--runs", name.replace("_1", ":1"), "--override", f"trainer.max_epochs={before['epochs'] + 1}"]
        session.main(["train", *there, *stores[1], *runs, *longer])
        run = record(out, "train")["runs"][name]
        assert (run["state"], run["epochs_before"]) == ("finished", before["epochs"])
        assert len(run["results"]["epoch_seconds"]) == before["epochs"] + 1
        assert run["results"]["places"] == [{"epochs": 0, "device": "CPU", "cuda_graph": False}]
