"""Everything on docs/your_own.md works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from targetprop.app import user_conf
from targetprop.app.overrides import check_overrides
from targetprop.app.run import train
from targetprop.utils.errors import UserError

PAGE = (Path(__file__).parents[1] / "docs/your_own.md").read_text()
FILES = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^python main\.py (.*)$", PAGE, flags=re.MULTILINE)
SHORT = [
    "trainer.threads=1",
    "trainer.enable_progress_bar=false",
    "callbacks.alignment=null",
    "trainer.limit_test_batches=1",
]
LEARNS = {"datamodule=own": 0.9}
"""Accuracies that are to be reached, by what a command begins with; chance is .5."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with all files of the page, from which runs are started."""
    for name, text in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    user_conf.offer_user_conf()
    yield tmp_path
    registered = Plugins.instance()
    registered.plugin_type_to_subclass_list[SearchPathPlugin].remove(user_conf.UserConf)
    for name, _ in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_page_has_files_and_commands() -> None:
    assert len(FILES) == 8
    assert len(COMMANDS) == 6


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_trains(project: Path, command: str) -> None:
    begins = command.split()[0]
    length = [] if begins in LEARNS else ["trainer.max_epochs=1", "trainer.limit_train_batches=2"]
    length += ["trainer.max_epochs=3"] if begins in LEARNS else []
    metrics = train(check_overrides([*shlex.split(command), *SHORT, *length, f"output_dir={project / 'run'}"]))
    assert metrics["test/accuracy"] >= LEARNS.get(begins, 0)
    if "lines.txt" in command:
        first, *others = Path("lines.txt").read_text().splitlines()
        assert first.startswith("commit {")
        assert first.endswith("seed 123")
        assert any("val/accuracy" in line for line in others)


def test_the_script_finds_the_folder_beside_it_from_elsewhere(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (command,) = re.findall(r"^python train\.py (.*)$", PAGE, flags=re.MULTILINE)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    call = [sys.executable, str(project / "train.py"), *command.split(), *SHORT, "trainer.limit_train_batches=1"]
    ended = subprocess.run(call, cwd=elsewhere, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    (config,) = elsewhere.glob("runs/*/*/config.yaml")
    assert "mine.network" in config.read_text()


def test_a_folder_adds_choices_and_replaces_none(project: Path) -> None:
    (project / "conf/network/tiny_vgg.yaml").write_text("_target_: mine.network\nhparams: {}\n")
    assert "models" in check_overrides([])["network"]["_target_"]
    assert check_overrides(["network=wide"]).network.hparams.width == 96
    with pytest.raises(UserError, match=r"network: unknown value 'wise'\. Did you mean 'wide'\?"):
        check_overrides(["network=wise"])


def test_folders_are_those_beside_the_script_and_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("script/conf", "here/conf"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "script/train.py")])
    assert user_conf.folders() == [tmp_path / "script/conf", tmp_path / "here/conf"]
    monkeypatch.setattr("sys.argv", [str(tmp_path / "here/train.py")])
    assert user_conf.folders() == [tmp_path / "here/conf"]
    monkeypatch.setattr("sys.argv", ["/usr/bin/targetprop"])
    assert user_conf.folders() == [tmp_path / "here/conf"]
    monkeypatch.chdir(Path(user_conf.__file__).parent)  # whose conf/ is ours
    assert user_conf.folders() == []


def test_a_network_of_ones_own_is_asked_for(project: Path) -> None:
    with pytest.raises(
        UserError, match=r"^network\._target_: expected the import path of a class or function .* got None"
    ):
        train(check_overrides(["network=own", f"output_dir={project}"]))
    with pytest.raises(
        UserError, match=r"^network\.hparams\.width: there is no such setting.* A \+ before it adds a key"
    ):
        check_overrides(["network=own", "network._target_=mine.network", "network.hparams.width=3"])
