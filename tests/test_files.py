"""Files are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from targetprop.utils.files import whole_file, write_text


def test_a_file_appears_when_all_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as partial:
        partial.write_text("all")
        assert not path.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "all"


def test_a_file_that_fails_leaves_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "first")

    def interrupted() -> None:
        with whole_file(path) as partial:
            partial.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "first"


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_text("left by a process that was killed")
    write_text(tmp_path / "file", "all")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
