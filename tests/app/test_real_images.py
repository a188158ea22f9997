"""DTP on real images, in minutes: run by hand with `pytest -m slow`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from targetprop.app.overrides import check_overrides
from targetprop.app.run import train

DATA = Path(os.environ.get("DATA_DIR", "data"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "cifar-10-batches-py" / "data_batch_1").is_file(), reason="CIFAR-10 is not there")
def test_one_epoch_of_the_published_command_on_a_small_network_learns(tmp_path: Path) -> None:
    published = ["model=dtp", "network=simple_vgg", "datamodule=cifar10", "trainer=default", "scheduler=cosine"]
    small = ["network.hparams.channels=[32,32,64,64,128]", "trainer.max_epochs=1"]
    metrics = train(check_overrides([*published, *small, f"data_dir={DATA}", f"output_dir={tmp_path}"]))
    assert metrics["test/accuracy"] >= 0.45
