"""What a checkpoint keeps of the run that wrote it, and whether the run that goes on from it is the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from targetprop.app.flat import flat
from targetprop.utils.errors import UserError
from targetprop.version import __version__

log = logging.getLogger(__name__)
Place = dict[str, Any]

KEY = "targetprop"
"""Where the record stands in a checkpoint."""

PLACES = ("output_dir", "data_dir", "datamodule.data_dir", "ckpt_path", "hydra", "trainer.default_root_dir")
PARTS = ("train", "test", "views", "callbacks", "logger")
DEVICES = (
    "trainer._target_", "trainer.gpus", "trainer.cuda_graph", "trainer.threads", "trainer.processes",
    "trainer.worker_timeout", "datamodule.num_workers",
)  # fmt: skip
LENGTHS = tuple(f"trainer.{name}" for name in ("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"))
OBSERVED = (
    "datamodule.download", "datamodule.eval_batch_size", "trainer.barebones", "trainer.check_val_every_n_epoch",
    "trainer.detect_anomaly", "trainer.enable_autolog_hparams", "trainer.enable_checkpointing",
    "trainer.enable_model_summary", "trainer.enable_progress_bar", "trainer.inference_mode",
    "trainer.limit_predict_batches", "trainer.limit_test_batches", "trainer.limit_val_batches",
    "trainer.log_every_n_steps", "trainer.num_sanity_val_steps", "trainer.profiler", "trainer.val_check_interval",
)  # fmt: skip
MAY_DIFFER = (*PLACES, *PARTS, *DEVICES, *LENGTHS, *OBSERVED)
"""What a run that goes on may have other settings of. All the rest, also what is yet unknown, decides what it computes.

A schedule that depends on the length of the run is the same only as long as that is.
"""

UNSAID: dict[str, Any] = {"trainer.accumulate_grad_batches": 1, "trainer.data_parallel": 1}
"""What settings are that are not there, unless they are null."""


def record_of(config: Mapping[str, Any], places: Sequence[Place] = ()) -> dict[str, Any]:
    """The record of a run with this plain configuration, which has been in these places."""
    return {"version": __version__, "config": dict(config), "places": list(places)}


def with_place(places: Sequence[Place], epochs: int, device: str, *, cuda_graph: bool) -> list[Place]:
    """The places of a run that goes on after so many epochs, on this device; a run that moves is told so.

    Args:
        places: where it has been: what each is, and "epochs", how many the run had behind it when it came there.
    """
    here: Place = {"device": device, "cuda_graph": cuda_graph}
    before = {key: places[-1][key] for key in here} if places else here
    if places and before == here:
        return list(places)
    if before != here:
        message = "The run moves from %s to %s: the rest is not, to the last bit, what it would have been there."
        log.warning(message, _named(before), _named(here))
    return [*places, {"epochs": epochs, **here}]


def _named(place: Place) -> str:
    return f"{place['device']}{' with CUDA graphs' if place['cuda_graph'] else ''}"


def refuse_other_settings(record: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise `UserError` for the first setting in which a plain configuration computes another run than the record's."""
    then, now = (flat(each, without=MAY_DIFFER) for each in (record["config"], config))
    for key in {**then, **now}:
        first, second = (each.get(key, UNSAID.get(key)) for each in (then, now))
        if not _same(key, first, second):
            message = (
                f"the run was made with {_shown(first)}, now it is {_shown(second)}; "
                "a run goes on with its very own settings only."
            )
            raise UserError(message, key=key)


def _same(key: str, first: object, second: object) -> bool:
    """1 is one batch, and 1.0 are all; else numbers of both kinds are the same."""
    return first == second and (not key.endswith("_batches") or type(first) is type(second))


def _shown(value: object) -> str:
    """As it is written in a configuration."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
