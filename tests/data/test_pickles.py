import contextlib
import os
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import at_most, python2_array, python2_batch, python2_dict, text

from targetprop.data import load_arrays
from targetprop.data.pickles import load_batch
from targetprop.utils.errors import UserError

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 12)


class Touch:
    """Unpickled the ordinary way, this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data_batch_1"


def test_python2_batch(file: Path) -> None:
    file.write_bytes(python2_batch(PIXELS, [3, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = load_arrays(file)
    assert content["labels"] == [3, 1]
    assert content["batch_label"] == "training batch 1 of 5"
    np.testing.assert_array_equal(content["data"], PIXELS, strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "array", [PIXELS, np.asfortranarray(PIXELS), np.linspace(0, 1, 6).reshape(3, 2), np.arange(3, dtype=">i8")]
)
def test_python3_batch_with_keys_as_bytes(file: Path, array: np.ndarray, protocol: int) -> None:
    file.write_bytes(pickle.dumps({b"data": array, "labels": [1, 2], b"names": [b"cat"]}, protocol))
    content = load_arrays(file)
    assert content["labels"] == [1, 2]
    assert content["names"] == ["cat"]
    np.testing.assert_array_equal(content["data"], array)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_names_of_both_numpy_generations(file: Path, module: str) -> None:
    file.write_bytes(python2_batch(PIXELS, [0, 0]).replace(b"numpy.core.multiarray", module.encode()))
    np.testing.assert_array_equal(load_arrays(file)["data"], PIXELS)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_never_runs(file: Path, marker: Path, protocol: int) -> None:
    payload = pickle.dumps({"data": Touch(marker)}, protocol)
    file.write_bytes(payload)
    with pytest.raises(UserError, match=rf"{file}.*system, and only NumPy arrays"):
        load_arrays(file)
    assert not marker.exists()
    pickle.loads(payload)  # the attack is real
    assert marker.exists()


def test_a_call_inside_an_object_array_never_runs(file: Path, marker: Path) -> None:
    file.write_bytes(pickle.dumps({"data": np.array([Touch(marker)], dtype=object)}, 2))
    with pytest.raises(UserError, match="system"):
        load_arrays(file)
    assert not marker.exists()


def test_a_call_inside_an_array_state_never_runs(file: Path, marker: Path) -> None:
    command = b"cos\nsystem\n" + text(f"touch {marker}") + b"\x85R"
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01" + command + b"tb"
    file.write_bytes(python2_dict(data=array))
    with pytest.raises(UserError, match=r"os\.system"):
        load_arrays(file)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["builtins\neval", "numpy\nload", "functools\npartial", "numpy\ncore.os.system"])
def test_no_other_name_is_looked_up(file: Path, name: str) -> None:
    file.write_bytes(b"\x80\x04c" + name.encode() + b"\n.")
    with pytest.raises(UserError, match=name.replace("\n", r"\.")):
        load_arrays(file)


@pytest.mark.parametrize("dtype", ["O8", "O", "V8", "S4", "M8[ns]"])
def test_only_arrays_of_plain_numbers(file: Path, dtype: str) -> None:
    """With flags 0, NumPy itself would believe that the object pointers of dtype O8 are plain bytes."""
    file.write_bytes(python2_dict(data=python2_array(np.arange(2, dtype=np.int64), dtype, flags=0)))
    with pytest.raises(UserError, match="not one of plain numbers"):
        load_arrays(file)


@pytest.mark.parametrize("target", ["numpy.core.multiarray\n_reconstruct", "numpy\ndtype", "_codecs\nencode"])
def test_what_is_looked_up_cannot_be_altered(file: Path, target: str) -> None:
    changes = b"N}(" + text("build") + b"K\x01" + text("__init__") + b"K\x01u\x86"
    file.write_bytes(b"\x80\x02c" + target.encode() + b"\n" + changes + b"b.")
    with pytest.raises(UserError):
        load_arrays(file)
    test_python2_batch(file)


@pytest.mark.parametrize(
    "value", [b"cnumpy\ndtype\n", b"cnumpy\ndtype\n" + text("u1") + b"\x85R", b"c_codecs\nencode\n", b"})"]
)
def test_only_plain_values_come_out(file: Path, value: bytes) -> None:
    file.write_bytes(python2_dict(data=value))
    with pytest.raises(UserError):
        load_arrays(file)


def test_a_list_that_holds_itself_is_refused(file: Path) -> None:
    loop: list[object] = []
    loop.append(loop)
    file.write_bytes(pickle.dumps({"data": loop}, 2))
    with pytest.raises(UserError, match="its lists hold one another"):
        load_arrays(file)


def test_every_truncation_is_refused(file: Path) -> None:
    whole = python2_batch(PIXELS, [3, 1])
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"{file}: not a readable batch file.*complete copy"):
            load_arrays(file)


def test_array_with_too_few_bytes(file: Path) -> None:
    whole = python2_batch(PIXELS, [3, 1])
    size, content = struct.pack("<I", PIXELS.nbytes), PIXELS.tobytes()
    shorter = whole.replace(size + content, struct.pack("<I", 5) + content[:5])
    file.write_bytes(shorter)
    with pytest.raises(UserError, match="reshape"):
        load_arrays(file)


@pytest.mark.parametrize(
    "content", [b"<html>Not found</html>", b"\x1f\x8b\x08\x00", pickle.dumps([1, 2]), b"\x00" * 50]
)
def test_other_files_are_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(UserError, match=str(file)):
        load_arrays(file)


def test_missing_file(file: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_arrays(file)


def nested(depth: int) -> object:
    """A list of two references to one list, and so on."""
    made: object = [1]
    for _ in range(depth):
        made = [made, made]
    return made


@pytest.mark.parametrize("key", ["data", "labels", "label_names"])
def test_lists_that_are_shared_many_times_over_are_refused(file: Path, key: str) -> None:
    file.write_bytes(pickle.dumps({key: nested(40)}, 2))
    with (
        pytest.raises(UserError, match="its lists hold one another more often than the file has bytes"),
        at_most(2**20),
    ):
        load_arrays(file)


def as_bytes_of_protocol_2(times: int, size: int) -> bytes:
    made = b"c_codecs\nencode\nq\x00X" + struct.pack("<I", size) + b"x" * size + b"q\x01" + text("latin1") + b"q\x02"
    again = b"h\x00h\x01h\x02\x87R" * times
    return b"\x80\x02}" + text("a") + b"](" + made + again + b"es."


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": [b"x" * 10**5] * 3000}, 3),
        pickle.dumps({"a": [np.zeros(10**5, np.uint8)] * 3000}, 2),
        as_bytes_of_protocol_2(3000, 10**5),
        b"\x80\x02}" + text("a") + b"Nr\xff\xff\xff\x7fs.",  # a table of 2**31 places
        b"\x80\x04}" + text("a") + b"\x8e" + struct.pack("<Q", 2**33) + b"xs.",  # bytes that are not there
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",
        b"\x80\x04" + b"\x8f" * 10**6 + b".",  # a million sets
        b"\x80\x02" + b"]" * 10**6 + b".",
        b"\x80\x02}" + b"2" * 10**6 + b".",
    ],
)
def test_a_small_file_does_not_take_much_memory(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with at_most(2**24), contextlib.suppress(UserError):
        load_arrays(file)


def test_a_large_file_is_not_read(file: Path) -> None:
    file.write_bytes(python2_batch(PIXELS, [3, 1]))
    os.truncate(file, 20 * 2**30)  # sparse
    with pytest.raises(UserError, match=rf"{file}: expected at most 1,073,741,824 bytes, got 21,474,836,480"):
        load_arrays(file)


@pytest.mark.parametrize(
    "value", [True, 1.0, "1", [1], None, pytest.param(10**5000, id="long"), nested(5), "\x1b[31m" * 1000]
)
def test_only_whole_numbers_are_labels(file: Path, value: object) -> None:
    file.write_bytes(pickle.dumps({"data": PIXELS, "labels": [1, value]}, 2))
    with pytest.raises(UserError, match=rf"{file}: 'labels': expected whole numbers in 0\.\.9, got ") as caught:
        load_batch(file, (12,), range(10))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_what_a_file_asks_for_is_shown_without_what_a_terminal_obeys(file: Path) -> None:
    file.write_bytes(b"\x80\x04c\x1b]0;x\x07" + b"y" * 10**5 + b"\nz\n.")
    with pytest.raises(UserError, match="it asks for ") as caught:
        load_arrays(file)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
