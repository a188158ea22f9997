"""Settings of the trainer: ours, and those of `lightning.Trainer` that a configuration may add."""

from __future__ import annotations

import os
from collections.abc import Iterable

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import DURATION, FRACTION, NULL, SHARE, TRUTH, WORD, Kind, choice, number, whole
from targetprop.utils.errors import UserError

PRECISIONS = ("32-true", "64-true", "bf16-mixed")
PLACES = {
    "accelerator": "trainer.gpus says where a run is: 0 is the CPU, null a GPU if there is one.",
    "devices": "trainer.gpus says where a run is, and trainer=layer_parallel trains in several processes.",
    "num_nodes": "trainer=layer_parallel trains on several machines, see docs/layer_parallel.md.",
    "strategy": "trainer=layer_parallel trains in several processes.",
    "plugins": "it is not for the configuration.",
    "callbacks": "the group callbacks says which there are: +callbacks.NAME={_target_:...}",
    "logger": "the group logger says which there are: +logger.NAME={_target_:...}",
}
"""Options of Lightning's that are set here, and what to set in their place."""
MATMUL_PRECISIONS = ("highest", "high", "medium")
MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""More are of no use, and may not start."""
THREADS = Kind("a whole number, 1 or more, at most 64 or four times the machine's cores", whole(1, MOST_THREADS).takes)
MOST_EPOCHS = 1_000_000
STOPS = "; without it only `max_epochs` ends a run"

OWN: Keys = {
    "gpus": Key(whole(0) | NULL, "null is a GPU if there is one, 0 the CPU; sequential training uses one"),
    "threads": Key(THREADS | NULL, "of the CPU; null is as many as the work of a batch is worth"),
    "matmul_precision": Key(choice(*MATMUL_PRECISIONS), "of float32 on a GPU: highest is float32, the others are TF32"),
    "cuda_graph": Key(TRUTH, "whether a training step is one CUDA graph, on a GPU"),
}
LAYER_PARALLEL: Keys = {
    "processes": Key(whole(1) | NULL, "how many share out the pairs; null is one for each pair with trained feedback"),
    "worker_timeout": Key(number(least=5), "seconds without a sign of life after which a process is given up"),
    "data_parallel": Key(whole(1, 1024), "groups of so many processes, each on batches of its own"),
}
LIGHTNING: Keys = {  # without those that would change nothing in a run
    "max_epochs": Key(whole(-1, MOST_EPOCHS), "of the run; -1 where `max_steps` or `max_time` bounds it"),
    "min_epochs": Key(whole(0) | NULL, "epochs that are trained whatever a callback says"),
    "max_steps": Key(whole(1) | whole(-1, -1), f"steps after which the run ends{STOPS}"),
    "min_steps": Key(whole(0) | NULL, "steps that are trained whatever a callback says"),
    "max_time": Key(DURATION | NULL, f"time after which the run ends, days:hours:minutes:seconds{STOPS}"),
    "limit_train_batches": Key(SHARE, "share of an epoch's batches that is trained on, or their number"),
    "limit_val_batches": Key(FRACTION, "share of the validation batches that is used, or their number"),
    "limit_test_batches": Key(FRACTION, "share of the test batches that is used, or their number"),
    "overfit_batches": Key(FRACTION, "share of batches, or their number, to train and validate on, again and again"),
    "fast_dev_run": Key(TRUTH | whole(0), "so many batches of everything, once, without records"),
    "check_val_every_n_epoch": Key(whole(1), "epochs from one validation to the next"),
    "val_check_interval": Key(SHARE | DURATION | NULL, "share of an epoch from one validation to the next, or steps"),
    "num_sanity_val_steps": Key(whole(-1), "validation batches before training"),
    "log_every_n_steps": Key(whole(1), "steps from one row of metrics to the next"),
    "precision": Key(choice(*PRECISIONS), "of numbers; bf16-mixed is bfloat16 by autocast"),
    "accumulate_grad_batches": Key(whole(1), "batches whose gradients are added up for a step of the optimiser"),
    "gradient_clip_val": Key(number(least=0) | NULL, "bound on the gradients"),
    "gradient_clip_algorithm": Key(choice("norm", "value") | NULL, "of what `gradient_clip_val` is a bound"),
    "deterministic": Key(TRUTH | choice("warn") | NULL, "whether torch refuses operations that are not deterministic"),
    "benchmark": Key(TRUTH | NULL, "whether cuDNN tries out which algorithm is the fastest"),
    "inference_mode": Key(TRUTH, "whether evaluation is without any graph of gradients"),
    "profiler": Key(choice("simple", "advanced", "pytorch") | NULL, "what times the parts of a step"),
    "detect_anomaly": Key(TRUTH, "whether autograd says where a number that is none came from"),
    "barebones": Key(TRUTH, "whether everything but training is switched off"),
    "enable_checkpointing": Key(TRUTH, "whether checkpoints are written; else it follows from the callbacks"),
    "enable_progress_bar": Key(TRUTH, "whether a terminal shows a bar"),
    "enable_model_summary": Key(TRUTH, "whether layers are listed before training"),
    "default_root_dir": Key(WORD | NULL, "where Lightning looks for files of its own, and finds none"),
}
TARGETS: dict[str, Keys] = {
    "targetprop.app.trainer.build_trainer": {**OWN, **LIGHTNING},
    "targetprop.app.trainer.build_layer_parallel_trainer": {**OWN, **LAYER_PARALLEL, **LIGHTNING},
}


def refuse_places(options: Iterable[str]) -> None:
    """Raise `UserError` for an option of Lightning's that is set elsewhere, or not by a configuration."""
    for key in options:
        if key in PLACES:
            raise UserError(f"this is set by targetprop; {PLACES[key]}", key=key)
