"""What a run left behind, put to use: loaded, shown examples, evaluated, exported."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

import targetprop
from targetprop import Learner
from targetprop.app.commands import COMMANDS
from targetprop.app.run import build_network, train
from targetprop.app.saved import cli
from targetprop.app.saved.evaluate import data_of, evaluate_again
from targetprop.app.saved.export import FORMATS, export, type_of
from targetprop.app.saved.load import Trained, load
from targetprop.data import digits
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]
RUNS = {
    "dtp": ["model=dtp"],
    "batch norm": ["model=amortised_dtp", "network=norm_vgg"],
    "whitened": ["model=amortised_dtp", "network=whitened_vgg", "network.hparams.channels=[4,6]"],
    "residual": ["model=backprop", "network=resnet18", "network.hparams.blocks=[1,1]"],
    "mlp": ["model=lee_dtp", "network=mlp"],
    "double precision": ["model=delta_mirror", "trainer.precision=64-true"],
    "no sweep": ["model=lra_e", "network=mlp"],
    "regression": ["model=dtp", "datamodule=teacher", "datamodule.load.train=500"],
    "own data": ["model=dtp", "datamodule=own", "datamodule.dataset=own_data.vectors", "datamodule.batch_size=32",
                 "network=mlp"],
    "tokens": ["model=backprop", "datamodule=copying", "datamodule.load.wait=3", "datamodule.load.copied=2",
               "datamodule.load.train=300", "datamodule.load.test=100", "datamodule.batch_size=20"],
    "attention": ["model=amortised_dtp", "datamodule=copying", "datamodule.load.wait=3", "datamodule.load.copied=2",
                  "datamodule.load.train=300", "datamodule.load.test=100", "datamodule.batch_size=20",
                  "network=decoder", "network.hparams.heads=2"],
    "through time": ["model=tptt", "datamodule=adding", "datamodule.load.length=5", "datamodule.load.train=300",
                     "datamodule.load.test=100", "datamodule.batch_size=20"],
    "pixels": ["model=tpri", "datamodule=sequential_digits"],
}  # fmt: skip
SEQUENCES = ["tokens", "attention", "through time", "pixels"]
Runs = dict[str, Path]


@pytest.fixture(scope="module")
def runs(compose_once: Compose) -> Runs:
    """Directories of short runs, by their names in `RUNS`."""
    made = {}
    for name, settings in RUNS.items():
        config = compose_once(*settings, "callbacks.alignment=null", "callbacks.history=null", output=name)
        train(config)
        made[name] = Path(config.output_dir)
    return made


def raw(trained: Trained, count: int = 5) -> Tensor:
    """Examples as the data set of a run has them."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, *trained.data.shape)
    if trained.data.is_images:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if trained.data.vocabulary is not None:
        return torch.randint(0, trained.data.vocabulary, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def taken(trained: Trained, dtype: torch.dtype, count: int = 5) -> Tensor:
    """The same, as the network takes them, in such a precision."""
    x = trained.data.inputs(raw(trained, count))
    return x.to(dtype) if x.is_floating_point() else x


@pytest.mark.parametrize("name", RUNS)
def test_a_network_comes_back_under_its_own_names_with_the_weights_of_the_checkpoint(runs: Runs, name: str) -> None:
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    trained = targetprop.load(runs[name])
    assert torch.equal(torch.get_rng_state(), drawn)
    mine = build_network(trained.config, trained.data)  # as anyone makes it, without us
    mine.to(next(trained.network.parameters()).dtype)
    assert type(trained.network) is type(mine)
    mine.load_state_dict(trained.network.state_dict())
    saved = torch.load(trained.path, weights_only=True)["state_dict"]
    assert any(torch.equal(value, next(mine.parameters())) for value in saved.values() if isinstance(value, Tensor))
    x = taken(trained, next(mine.parameters()).dtype)
    mine.eval()
    with torch.no_grad():
        torch.testing.assert_close(mine(x), trained.learner(x))
        torch.testing.assert_close(mine(x), trained.predict(raw(trained)))


def test_the_learner_comes_back_with_its_feedback_and_goes_on_learning(runs: Runs) -> None:
    trained = targetprop.load(runs["dtp"], "last")
    learner = trained.learner
    saved = torch.load(runs["dtp"] / "checkpoints/last.ckpt", weights_only=True)
    assert isinstance(learner, Learner)
    assert learner.steps == saved["state_dict"]["learner._extra_state"]["steps"] > 0
    before = [each.clone() for each in trained.network.parameters()]
    learner.train()
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=0.1)
    loss = torch.nn.functional.cross_entropy(learner(torch.randn(8, 1, 8, 8)), torch.arange(8))
    learner.backward(loss)
    optimizer.step()
    assert not torch.equal(before[0], next(trained.network.parameters()))  # one and the same weights


def test_best_and_last_are_two_checkpoints_and_a_file_is_one(runs: Runs, tmp_path: Path) -> None:
    assert load(runs["dtp"]).path.name == "best.ckpt"
    assert load(runs["dtp"], "last").path.name == "last.ckpt"
    assert load(runs["dtp"] / "checkpoints/last.ckpt").path.name == "last.ckpt"
    with pytest.raises(UserError, match=r"^checkpoint: expected best or last, got 'first'"):
        load(runs["dtp"], "first")
    with pytest.raises(UserError, match=r"^run: there is no directory or file .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"^run: there is no checkpoint in "):
        load(tmp_path)


def test_data_are_not_needed_to_load(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "FILE", Path("nowhere"))
    assert load(runs["dtp"]).data.shape == (1, 8, 8)


def test_a_checkpoint_of_before_says_nothing_of_its_data_which_are_read(runs: Runs, tmp_path: Path) -> None:
    saved = torch.load(runs["dtp"] / "checkpoints/last.ckpt", weights_only=True)
    for key in ("data", "made_with", "sealed"):
        del saved["targetprop"][key]
    torch.save(saved, tmp_path / "old.ckpt")
    assert load(tmp_path / "old.ckpt").data == load(runs["dtp"]).data


def test_code_that_is_no_longer_there_is_named(runs: Runs, tmp_path: Path) -> None:
    saved = torch.load(runs["dtp"] / "checkpoints/last.ckpt", weights_only=True)
    saved["targetprop"]["config"]["network"]["_target_"] = "gone.network"
    del saved["targetprop"]["sealed"]
    torch.save(saved, tmp_path / "own.ckpt")
    with pytest.raises(UserError, match=r"^network\._target_: .*gone"):
        load(tmp_path / "own.ckpt")


@pytest.mark.parametrize("name", ["dtp", "batch norm", "regression", "own data", "double precision"])
def test_an_evaluation_gives_the_numbers_of_the_run_again_and_writes_nothing(runs: Runs, name: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs[name].rglob("*")}
    trained = load(runs[name])
    again = evaluate_again(trained, data_of(trained))
    recorded = json.loads((runs[name] / "results.json").read_text())
    assert set(again) == {"validation", "test"}
    assert {part: json.loads(json.dumps(vars(each))) for part, each in again.items()} == {
        part: recorded[part] for part in again
    }
    assert {path: path.stat().st_mtime_ns for path in runs[name].rglob("*")} == before


def test_an_evaluation_on_other_data_is_refused(runs: Runs) -> None:
    trained = load(runs["own data"])
    trained.config.datamodule.arguments = {"classes": 4}
    with pytest.raises(UserError, match=r"^datamodule"):
        data_of(trained)
    with pytest.raises(UserError, match=r"^--data-dir: "):
        data_of(load(runs["regression"]), Path("elsewhere"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The same digit in all ways in which an image may come."""
    digit = digits.load().test.pixels[0, 0].numpy()
    for suffix in ("png", "bmp.png"):
        Image.fromarray(digit).save(tmp_path / f"digit.{suffix}")
    Image.fromarray(np.stack([digit] * 3, -1)).save(tmp_path / "colours.png")
    arrays = {
        "plain": digit,
        "channel": digit[None],
        "last": digit[..., None],
        "several": np.stack([digit, 255 - digit]),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    cli.predict(arguments)
    return capsys.readouterr().out


def test_predictions_are_the_same_in_whatever_way_an_image_comes(
    runs: Runs, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = load(runs["dtp"])
    expected = trained.predict(digits.load().test.pixels[:1]).double().softmax(1)[0]
    names = ["digit.png", "colours.png", "plain.npy", "channel.npy", "last.npy", "several.npy"]
    found = json.loads(said([str(runs["dtp"]), *(str(files / name) for name in names), "--json"], capsys))
    assert [Path(each["input"]).name for each in found] == [*names[:-1], "several.npy[0]", "several.npy[1]"]
    for each in found[:-1]:
        assert each["class"] == str(int(expected.argmax()))
        torch.testing.assert_close(torch.tensor(list(each["probabilities"].values())).double(), expected)
    assert found[-1]["probabilities"] != found[0]["probabilities"]


def test_predictions_are_as_good_as_the_run_says(runs: Runs) -> None:
    test = digits.load().test
    right = (load(runs["dtp"]).predict(test.pixels).argmax(1) == test.labels).double().mean()
    recorded = json.loads((runs["dtp"] / "results.json").read_text())["test"]["accuracy"]
    assert float(right) == pytest.approx(recorded)


def test_the_table_has_a_row_for_each_example_of_a_folder(
    runs: Runs, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = said([str(runs["dtp"]), str(files)], capsys)
    assert shown.count(".png") + shown.count(".npy") == 8
    assert "class" in shown


def test_numbers_to_be_met_are_predicted_of_arrays_of_floats(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = load(runs["regression"])
    x = raw(trained, 2)
    np.save(tmp_path / "x.npy", x.numpy())
    found = json.loads(said([str(runs["regression"]), str(tmp_path / "x.npy"), "--json"], capsys))
    torch.testing.assert_close(torch.tensor([each["outputs"] for each in found]), trained.predict(x))
    assert str(tmp_path / "x.npy[1]") in said([str(runs["regression"]), str(tmp_path / "x.npy")], capsys).replace(
        "\n", ""
    )


BAD: dict[str, tuple[str, Any, str]] = {
    "another size": (
        "a.png",
        Image.new("L", (28, 28)),
        r"a\.png: expected an image of 8x8 pixels, got 28x28; --res",
    ),
    "no image": ("a.png", b"none", r"a\.png: expected an image or an array \(\.npy\), which this is not"),
    "16 bits": ("a.png", Image.new("I;16", (8, 8)), r"a\.png: expected 8 bits for each channel, got Pillow's mode I"),
    "floats": ("a.npy", np.zeros((8, 8), np.float32), r"a\.npy: expected uint8 of 0 to 255, got float32"),
    "another shape": ("a.npy", np.zeros((8, 9), np.uint8), r"a\.npy: expected one example of \(1, 8, 8\), or several"),
    "nothing": ("a.npy", np.zeros((0, 1, 8, 8), np.uint8), r"a\.npy: expected one example of \(1, 8, 8\), or several"),
    "no array": ("a.npy", b"none", r"a\.npy: expected an array of NumPy, which this is not"),
    "objects": ("a.npy", np.array([{}]), r"a\.npy: expected an array of NumPy, which this is not"),
    "an empty folder": ("a", None, r"a: expected files \.png, \.jpg, \.jpeg, \.npy, got a folder without one"),
    "nowhere": ("b.png", None, r"a\.png: expected an image or an array \(\.npy\), which this is not: No such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_example_of_the_run_is_refused_by_its_file(
    runs: Runs, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content, message = BAD[name]
    path = tmp_path / file
    if isinstance(content, Image.Image):
        content.save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    elif not path.suffix:
        path.mkdir()
    else:
        path = tmp_path / "a.png"
    with pytest.raises(SystemExit, match=rf"^Error: \S*{message}"):
        cli.predict([str(runs["dtp"]), str(path)])
    assert capsys.readouterr().out == ""


def test_every_place_of_a_sequence_of_tokens_is_foretold(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, path = load(runs["tokens"]), tmp_path / "some.npy"
    np.save(path, raw(trained, 2).numpy().astype(np.int16))
    outputs = trained.predict(raw(trained, 2))
    assert outputs.shape == (2, 7, 10)
    likeliest = [[trained.data.classes[each] for each in row] for row in outputs.argmax(2).tolist()]  # type: ignore[index]
    first, second = json.loads(said([str(runs["tokens"]), str(path), "--json"], capsys))
    assert [first["classes"], second["classes"]] == likeliest
    for choice, probabilities in zip(second["classes"], second["probabilities"], strict=True):
        assert sum(probabilities.values()) == pytest.approx(1)
        assert max(probabilities, key=probabilities.get) == choice
    assert trained.predict(raw(trained, 0)).shape == (0, 7, 10)
    assert "likeliest at every place" in " ".join(said([str(runs["tokens"]), str(path)], capsys).split())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 7), np.float32), "expected tokens, whole numbers of 0 to 9, got float32"),
        (np.full((2, 7), 10), "expected tokens, whole numbers of 0 to 9, got int64 of 10 to 10"),
        (np.full((7,), -1), "expected tokens, whole numbers of 0 to 9, got int64 of -1 to -1"),
        (np.zeros((2, 8), int), r"expected one example of \(7,\), or several"),
    ],
)
def test_what_are_no_such_tokens_is_refused(runs: Runs, tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SystemExit, match=rf"^Error: \S*a\.npy: {message}"):
        cli.predict([str(runs["tokens"]), str(tmp_path / "a.npy")])
    with pytest.raises(UserError, match=r"^examples: expected examples of \(7,\), tokens, whole numbers of 0 to 9"):
        load(runs["tokens"]).predict(torch.from_numpy(array))


def test_an_image_is_scaled_if_asked_for(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (28, 30)).save(tmp_path / "large.jpg")
    assert len(json.loads(said([str(runs["dtp"]), str(tmp_path / "large.jpg"), "--resize", "--json"], capsys))) == 1


def test_an_image_for_a_run_on_other_inputs_is_refused(runs: Runs, files: Path) -> None:
    with pytest.raises(SystemExit, match=r"digit\.png: expected an array of NumPy \(\.npy\), as inputs of"):
        cli.predict([str(runs["own data"]), str(files / "digit.png")])


EXPORTED = ["dtp", "batch norm", "whitened", "residual", "mlp", "double precision", "own data", *SEQUENCES]


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("to", ["state_dict", "safetensors"])
def test_exported_weights_fit_the_network_and_give_its_outputs(runs: Runs, tmp_path: Path, name: str, to: str) -> None:
    trained, path = load(runs[name]), tmp_path / "weights"
    for package in FORMATS[to].packages:
        pytest.importorskip(package)
    export(trained, to, path)
    state = torch.load(path, weights_only=True) if to == "state_dict" else _safetensors(path)
    mine = build_network(trained.config, trained.data).to(next(trained.network.parameters()).dtype)
    mine.load_state_dict(state)
    x = taken(trained, next(mine.parameters()).dtype)
    with torch.no_grad():
        torch.testing.assert_close(mine.eval()(x), trained.predict(raw(trained)))


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("to", ["torch_export", "onnx"])
def test_exported_programs_give_the_outputs_of_the_network_for_batches_of_any_size(
    runs: Runs, tmp_path: Path, name: str, to: str
) -> None:
    trained, path = load(runs[name]), tmp_path / f"network{FORMATS[to].suffix}"
    if to == "onnx":
        session_of = pytest.importorskip("onnxruntime").InferenceSession
        pytest.importorskip("onnxscript")
    export(trained, to, path)
    for count in (1, 7):
        x = taken(trained, type_of(trained, to), count)
        if to == "onnx":
            (found,) = session_of(path).run(["output"], {"input": x.numpy()})
            found = torch.from_numpy(found)
        else:
            found = torch.export.load(path).module()(x)
        expected = trained.predict(raw(trained, count)).to(found.dtype)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


READ = """
import sys
sys.modules["targetprop"] = None  # as where it is not installed
import torch
folder, = sys.argv[1:]
torch.load(folder + "/a.pt", weights_only=True)
torch.export.load(folder + "/a.pt2").module()(torch.zeros(3, 1, 8, 8))
try:
    import safetensors.torch
    safetensors.torch.load_file(folder + "/a.safetensors")
    import onnxruntime
    onnxruntime.InferenceSession(folder + "/a.onnx")
except ImportError:
    pass
"""


@pytest.mark.parametrize("name", ["residual", "whitened"])  # networks of layers that are ours
def test_exported_files_have_no_trace_of_us_and_open_without_us(runs: Runs, tmp_path: Path, name: str) -> None:
    trained = load(runs[name])
    for to, kind in FORMATS.items():
        if to in ("safetensors", "onnx"):
            for package in kind.packages:
                pytest.importorskip(package)
        path = tmp_path / f"a{kind.suffix}"
        export(trained, to, path)
        for part in _contents(path):
            assert b"targetprop" not in part, to
            assert str(Path.cwd()).encode() not in part, to
    subprocess.run([sys.executable, "-c", READ, str(tmp_path)], check=True, timeout=300)


def _contents(path: Path) -> list[bytes]:
    """The bytes of a file, and of everything in it if it is an archive."""
    if not zipfile.is_zipfile(path):
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        return [path.read_bytes(), *(archive.read(name) for name in archive.namelist())]


def test_the_command_writes_beside_the_run_and_says_what_the_network_takes(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.export([str(runs["dtp"]), "--to", "state_dict"])
    shown = capsys.readouterr().out
    assert (runs["dtp"] / "network.pt").is_file()
    assert "(batch, 1, 8, 8), float32: (pixel / 255 - mean) / std, mean [0.305], std [0.376]" in shown
    (runs["dtp"] / "network.pt").unlink()


def test_a_missing_package_is_named_with_its_extra(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targetprop.app.saved.export.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'^--to: onnx needs onnx: pip install "targetprop\[export\]"'):
        export(load(runs["dtp"]), "onnx", tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_every_command_is_there_and_names_of_formats_are_those_of_the_command_line() -> None:
    from targetprop.app.commands import command_of

    assert tuple(FORMATS) == cli.TO
    assert all(callable(command_of([name])) for name in COMMANDS)
    assert command_of(["model=dtp"]) is None
    assert command_of([]) is None
