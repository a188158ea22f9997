"""Every model of the table of all rules trains on the default set-up, or says in one line what it needs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from targetprop.app.overrides import check_overrides
from targetprop.app.run import train
from targetprop.utils.errors import UserError

PAGE = (Path(__file__).parents[1] / "docs" / "family.md").read_text()
SHORT = (
    "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1", "trainer.threads=1", "trainer.enable_progress_bar=false",
    "callbacks.alignment=null", "callbacks.history=null", "logger=none",
)  # fmt: skip
OTHERS = ("backprop", "layer_parallel_dtp", "as_printed")
"""That stand in no row."""


def of_the_table() -> list[str]:
    """Names in the first column."""
    return re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)


NEEDS = {"as_printed": "network=mlp", "counter_current": "network=mlp", "lra_e": "network=mlp",
         "gait_prop": "network=invertible_mlp", "tptt": "network=rnn", "tpri": "network=rnn",
         "tpri_linearized": "network=rnn"}  # fmt: skip
"""What those need that do not train the default network."""


def test_the_table_is_read_whole() -> None:
    names = of_the_table()
    assert len(names) >= 30
    assert {"dtp", "batchwise_sign_symmetry", "shibuya_l_drl", "gait_prop"} <= set(names)


@pytest.mark.parametrize("model", [*of_the_table(), *OTHERS])
def test_a_model_trains_on_the_default_set_up_or_says_what_it_needs(model: str, tmp_path: Path) -> None:
    settings = [f"model={model}", *SHORT, f"output_dir={tmp_path / 'run'}"]
    need = NEEDS.get(model)
    if need is not None:
        with pytest.raises(UserError, match=need) as refused:
            train(check_overrides(settings))
        assert "\n" not in str(refused.value)
        settings += [need, *(["datamodule=sequential_digits"] if need == "network=rnn" else [])]
    metrics = train(check_overrides(settings))
    assert all(map(math.isfinite, metrics.values()))
    assert "test/accuracy" in metrics
