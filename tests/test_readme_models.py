"""Every model by its name trains on the default set-up, or says in one line what it needs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from targetprop import ALGORITHMS, LEARNERS
from targetprop.app.overrides import check_overrides
from targetprop.app.run import train
from targetprop.utils.errors import UserError

README = (Path(__file__).parents[1] / "README.md").read_text()
SHORT = (
    "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1", "trainer.threads=1", "trainer.enable_progress_bar=false",
    "callbacks.alignment=null", "callbacks.history=null", "logger=none",
)  # fmt: skip
MODELS = [*ALGORITHMS, *LEARNERS, "backprop", "layer_parallel_dtp", "as_printed"]
NEEDS = {"as_printed": "network=mlp", "counter_current": "network=mlp", "lra_e": "network=mlp",
         "gait_prop": "network=invertible_mlp", "tptt": "network=rnn", "tpri": "network=rnn",
         "tpri_linearized": "network=rnn"}  # fmt: skip
"""What those need that do not train the default network."""


def test_the_readme_names_no_other_models() -> None:
    (table,) = re.findall(r"^\| name \| .*?\n\n", README, flags=re.DOTALL | re.MULTILINE)
    names = {name for row in table.strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert len(names) >= 10
    assert names <= set(MODELS)


def test_the_page_of_the_family_says_what_they_need() -> None:
    page = (Path(__file__).parents[1] / "docs/family.md").read_text()
    (said,) = re.findall(r"^`python main.py model=RULE`.*?\n\n", page, flags=re.DOTALL | re.MULTILINE)
    assert {name for name in MODELS if f"`{name}`" in said} == set(NEEDS)
    assert all(f"`{need}`" in said for need in NEEDS.values())


@pytest.mark.parametrize("model", MODELS)
def test_a_model_trains_on_the_default_set_up_or_says_what_it_needs(model: str, tmp_path: Path) -> None:
    settings = [f"model={model}", *SHORT, f"output_dir={tmp_path / 'run'}"]
    need = NEEDS.get(model)
    if need is not None:
        with pytest.raises(UserError, match=need) as refused:
            train(check_overrides(settings))
        assert "\n" not in str(refused.value)
        settings.append(need)
        settings += ["datamodule=sequential_digits"] if need == "network=rnn" else []
    metrics = train(check_overrides(settings))
    assert all(map(math.isfinite, metrics.values()))
    assert "test/accuracy" in metrics
