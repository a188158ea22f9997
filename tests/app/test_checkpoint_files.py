"""Checkpoint files: never half written, never read damaged, found by what they are called."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from targetprop.app import unwritten
from targetprop.app.checkpoint.files import SEAL, DamagedError, WholeFiles, read, sealed
from targetprop.app.checkpoint.find import find
from targetprop.app.checkpoint.harmless import inside_only
from targetprop.app.checkpoint.record import record_of
from targetprop.utils.errors import UserError


def checkpoint(step: int) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.arange(5.0)}, "global_step": step, "targetprop": record_of({"seed": 1})}


def write(path: Path, step: int = 1) -> Path:
    WholeFiles().save_checkpoint(checkpoint(step), path)
    return path


def damage(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_an_interrupted_save_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "last.ckpt")

    def interrupted(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(path, step=2)
    assert read(path)["global_step"] == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unwritten.reset()
    path = write(tmp_path / "last.ckpt")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        for _ in range(2):
            write(path, step=2)
    assert caplog.text.count("last.ckpt cannot be written: No space left on device.") == 1
    with pytest.raises(UserError, match=r"last\.ckpt could not be written: No space left on device"):
        unwritten.refuse()
    assert read(path)["global_step"] == 1
    write(path, step=3)
    unwritten.refuse()  # which has nothing to say any more
    assert read(path)["global_step"] == 3


def test_torch_reads_a_sealed_file_as_any_other(tmp_path: Path) -> None:
    saved = torch.load(write(tmp_path / "last.ckpt"), weights_only=True)
    assert torch.equal(saved["state_dict"]["weight"], torch.arange(5.0))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = write(tmp_path_factory.mktemp("flipped") / "last.ckpt")
    size = path.stat().st_size
    # Also in the checksum itself, and in the 22 bytes before it, which announce it.
    byte = data.draw(st.one_of(st.integers(0, size - 1), st.integers(size - SEAL - 22, size - 1)))
    damage(path, byte, data.draw(st.integers(0, 7)))
    with pytest.raises(DamagedError, match=r"last\.ckpt is "):
        read(path)


@pytest.mark.parametrize("kept", [0, 1, 21, 100, 500, -1])
def test_every_cut_file_is_noticed(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "last.ckpt")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedError, match=r"last\.ckpt is "):
        read(path)


def test_a_file_of_torch_without_a_record_needs_no_checksum(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "weights.pt")
    assert read(tmp_path / "weights.pt") == {"state_dict": {}}
    (tmp_path / "sealed.pt").write_bytes(sealed((tmp_path / "weights.pt").read_bytes()))
    assert read(tmp_path / "sealed.pt") == {"state_dict": {}}


def test_words_and_directories_mean_checkpoints(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step, name in enumerate(("best", "previous", "last")):
        write(run / f"checkpoints/{name}.ckpt", step)

    def found(ckpt_path: str, output_dir: Path = run, *, train: bool = True) -> str:
        meant = find(ckpt_path, str(output_dir), train=train)
        assert meant is not None
        return meant[0].name

    assert found("last") == found("auto") == found(str(run), tmp_path) == "last.ckpt"
    assert found("best") == found(str(run), tmp_path, train=False) == "best.ckpt"
    assert found(str(run / "checkpoints"), tmp_path) == "last.ckpt"
    assert find("auto", str(tmp_path / "new"), train=True) is None
    for nothing in ("last", "best"):
        with pytest.raises(UserError, match=r"there is no checkpoint in .*new.checkpoints"):
            find(nothing, str(tmp_path / "new"), train=True)
    with pytest.raises(UserError, match=r"there is no file .*nowhere"):
        find(str(tmp_path / "nowhere"), str(run), train=True)


@pytest.mark.parametrize("given", ["last", "auto", "run", "file"])
def test_in_place_of_a_damaged_checkpoint_the_one_before_it_is_used(
    tmp_path: Path, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    last, previous = (write(tmp_path / f"checkpoints/{name}.ckpt") for name in ("last", "previous"))
    damage(last, 40)
    asked = {"run": str(tmp_path), "file": str(last)}.get(given, given)
    with caplog.at_level(logging.WARNING):
        meant = find(asked, str(tmp_path), train=True)
    assert meant is not None
    assert meant[0] == previous
    assert f"{last} is damaged" in caplog.text
    damage(previous, 40)
    with pytest.raises(DamagedError, match="previous"):
        find(asked, str(tmp_path), train=True)


def test_no_path_of_a_checkpoint_leads_out_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run/checkpoints"
    inside, outside = str(folder / "best.ckpt"), str(folder / "../../thesis")
    state = {
        "dirpath": str(folder), "best_model_path": outside, "kth_best_model_path": inside,
        "last_model_path": "/etc/passwd", "best_k_models": {outside: 1.0, inside: 0.5}, "best_model_score": 1.0,
    }  # fmt: skip
    states = {"ModelCheckpoint": state, "History": {"epochs": []}}
    inside_only(states)
    assert state["best_model_path"] == state["last_model_path"] == ""
    assert state["kth_best_model_path"] == inside
    assert state["best_k_models"] == {inside: 0.5}
