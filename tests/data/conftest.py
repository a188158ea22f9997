"""Small data sets in memory, small files in the published CIFAR-10 format, and a server to download from."""

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from data_helpers import NAMES, python2_batch, python2_dict, python2_list, random_images, text

from targetprop.data import Images, Splits
from targetprop.data.cifar10 import ARCHIVE, META_FILE, TEST_FILE, TRAIN_FILES


@pytest.fixture
def cifar_files() -> dict[str, bytes]:
    """Files by name: batches of 20 images, of which image k has label k % 10 and the file's number at pixel 0."""
    files = {META_FILE: python2_dict(label_names=python2_list(list(map(text, NAMES))))}
    for number, name in enumerate([*TRAIN_FILES, TEST_FILE]):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 3072), dtype=np.uint8)
        pixels[:, 0] = number
        files[name] = python2_batch(pixels, [k % 10 for k in range(20)])
    return files


@pytest.fixture
def write_cifar(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Writes files into the published folder and returns the data directory."""

    def write(files: dict[str, bytes]) -> Path:
        folder = tmp_path / ARCHIVE.folder
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return tmp_path

    return write


@pytest.fixture
def images() -> Images:
    return random_images(50)


@pytest.fixture
def splits() -> Splits:
    return Splits(train=random_images(200), test=random_images(30, seed=1))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A directory and the address at which its files can be had."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    root = tmp_path_factory.mktemp("server")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield root, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()
