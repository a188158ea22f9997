"""Settings of the observers of a run."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import (
    FILE_NAME,
    MAPPING,
    NULL,
    OBJECT,
    TEXT,
    TRUTH,
    WORD,
    choice,
    list_of,
    number,
    whole,
)

OURS = "targetprop.app.callbacks"
MODE = Key(choice("min", "max"), "whether less or more of the metric is better")
METRIC = Key(WORD, "the metric, such as `val/accuracy` or `val/loss`")
EVERY = whole(1)

CHECKPOINT: Keys = {
    "dirpath": Key(WORD, "folder of the checkpoints"),
    "filename": Key(FILE_NAME, "name of the file, without its ending"),
    "monitor": Key(WORD | NULL, "the metric by which the best are kept, such as `val/accuracy`; null keeps the last"),
    "mode": MODE,
    "save_top_k": Key(whole(1) | whole(-1, -1), "how many are kept; -1 is all of them"),
    "save_last": Key(TRUTH | choice("link") | NULL, "whether the last one is kept beside them"),
    "save_weights_only": Key(TRUTH, "whether only weights are kept, from which no run can go on"),
    "save_on_exception": Key(TRUTH, "whether one is written when a run fails"),
    "every_n_train_steps": Key(whole(1) | NULL, "steps from one to the next"),
    "every_n_epochs": Key(whole(1) | NULL, "epochs from one to the next"),
    "train_time_interval": Key(OBJECT | NULL, "time from one to the next"),
    "save_on_train_epoch_end": Key(TRUTH | NULL, "whether it is written at the end of training epochs"),
    "auto_insert_metric_name": Key(TRUTH, "whether names of metrics stand in that of the file"),
    "enable_version_counter": Key(TRUTH, "whether a file that is there gets a neighbour instead of being replaced"),
    "verbose": Key(TRUTH, "whether every one is announced"),
}
TARGETS: dict[str, Keys] = {
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint": CHECKPOINT,
    f"{OURS}.checkpoint.BestCheckpoint": {
        **CHECKPOINT,
        "monitor": METRIC,
    },
    f"{OURS}.checkpoint.LastCheckpoint": {
        "dirpath": Key(WORD, "folder of the checkpoints"),
        "every_n_steps": Key(EVERY | NULL, "steps from one to the next, beside those of epochs' ends"),
        "every_n_minutes": Key(number(above=0) | NULL, "minutes from one to the next: what a kill costs at most"),
    },
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping": {
        "monitor": METRIC,
        "mode": MODE,
        "patience": Key(whole(0), "validations without improvement after which training ends"),
        "min_delta": Key(number(least=0), "what is no improvement yet"),
        "verbose": Key(TRUTH, "whether every improvement is announced"),
        "strict": Key(TRUTH, "whether a metric that is not there is an error"),
        "check_finite": Key(TRUTH, "whether training ends when the metric is not finite"),
        "stopping_threshold": Key(number() | NULL, "value of the metric that is good enough"),
        "divergence_threshold": Key(number() | NULL, "value of the metric that is hopeless"),
        "check_on_train_epoch_end": Key(TRUTH | NULL, "whether it looks at the end of training epochs"),
        "log_rank_zero_only": Key(TRUTH, "whether only the first process says something"),
    },
    f"{OURS}.alignment.Alignment": {"every_n_steps": Key(EVERY, "steps from one comparison with backprop to the next")},
    f"{OURS}.measures.Measures": {
        "which": Key(list_of(WORD, "names"), "names of measures, explained in [measures.md](measures.md)"),
        "numbers": Key(MAPPING, "numbers of these measures, by name, where they are not to be the default ones"),
        "every_n_steps": Key(EVERY, "steps from one measurement to the next"),
        "path": Key(WORD, "file of the picture"),
    },
    f"{OURS}.divergence.StopOnDivergence": {
        "every_n_steps": Key(EVERY, "steps from one look at infinite numbers to the next; none goes unseen")
    },
    f"{OURS}.history.History": {
        "path": Key(WORD, "file of the curves"),
        "redraw_seconds": Key(number(least=0), "seconds from one drawing to the next, at least"),
        "title": Key(TEXT | NULL, "above the curves, before the best of the metric"),
    },
    f"{OURS}.progress.ProgressBar": {"refresh_rate": Key(whole(0), "batches until it is drawn anew; 0 is no bar")},
    f"{OURS}.progress.ProgressLines": {"seconds": Key(number(above=0), "until the next line, without a terminal")},
    f"{OURS}.feedback_figure.FeedbackFigure": {
        "folder": Key(WORD, "of the pictures"),
        "plot_every": Key(EVERY, "steps from one picture to the next"),
    },
    f"{OURS}.prune.Prune": {
        "monitor": METRIC,
        "mode": MODE,
        "folder": Key(WORD, "directory of the sweep"),
        "trial": Key(whole(0), "its number"),
        "study_name": Key(WORD, "of the study"),
        "storage": Key(WORD | NULL, "where the study is, if not in the folder"),
    },
    f"{OURS}.trial.AccuracyFloor": {
        "least": Key(number(least=0, most=1), "training accuracy of an epoch below which training ends")
    },
    f"{OURS}.trial.TrialRecord": {
        "path": Key(WORD, "file of the record"),
        "command": Key(TEXT | NULL, "that reproduces the trial"),
        "hyperparameters": Key(MAPPING, "what the record says of the run"),
    },
}
