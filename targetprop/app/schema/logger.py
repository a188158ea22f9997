"""Settings of the loggers."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import NULL, TEXT, TRUTH, WORD, choice, list_of, whole

FILES: Keys = {
    "save_dir": Key(WORD, "folder in which the logger has its own"),
    "name": Key(TEXT | NULL, "of a folder between them, if any"),
    "version": Key(WORD | whole(0) | NULL, "name of its own folder"),
    "prefix": Key(TEXT, "before the names of metrics"),
}
PROJECT = Key(WORD, "which groups runs")
RUN = Key(WORD | NULL, "of the run")
TAGS = Key(list_of(WORD, "words"), "that say what the run is")
TARGETS: dict[str, Keys] = {
    "targetprop.app.loggers.csv.CSVLogger": {
        "save_dir": FILES["save_dir"],
        "name": Key(TEXT, "of a folder between them, if any"),
        "version": Key(WORD, "name of its own folder"),
        "flush_logs_every_n_steps": Key(whole(1), "rows from one writing to the next"),
    },
    "targetprop.app.loggers.tensorboard.TensorBoardLogger": {
        **FILES,
        "log_graph": Key(TRUTH, "whether the network is drawn"),
        "default_hp_metric": Key(TRUTH, "whether there is a metric for hyper-parameters"),
        "sub_dir": Key(TEXT | NULL, "of a folder within its own"),
    },
    "lightning.pytorch.loggers.wandb.WandbLogger": {
        "save_dir": FILES["save_dir"],
        "project": PROJECT,
        "name": RUN,
        "tags": TAGS,
        "offline": Key(TRUTH, "whether nothing is sent"),
        "id": Key(WORD | NULL, "of a run that goes on"),
        "prefix": FILES["prefix"],
    },
    "targetprop.app.loggers.mlflow.MLFlowLogger": {
        "experiment_name": PROJECT,
        "run_name": RUN,
        "tracking_uri": Key(WORD, "where runs are kept: a server, or a file, sqlite:///PATH"),
        "tags": TAGS,
        "run_id": Key(WORD | NULL, "of a run that goes on"),
        "prefix": FILES["prefix"],
        "artifact_location": Key(WORD | NULL, "where files of runs are kept"),
        "synchronous": Key(TRUTH | NULL, "whether a step waits until its metrics are kept"),
    },
    "targetprop.app.loggers.trackio.TrackioLogger": {
        "project": PROJECT,
        "name": RUN,
        "tags": TAGS,
        "group": Key(WORD | NULL, "of runs within the project"),
        "space_id": Key(WORD | NULL, "of a Space that shows them"),
        "resume": Key(choice("never", "allow", "must"), "whether a run of this name goes on"),
    },
}
PACKAGES = {
    "lightning.pytorch.loggers.WandbLogger": "wandb",
    "lightning.pytorch.loggers.MLFlowLogger": "mlflow",
    "targetprop.app.loggers.mlflow.MLFlowLogger": "mlflow",
    "lightning.pytorch.loggers.CometLogger": "comet_ml",
    "lightning.pytorch.loggers.NeptuneLogger": "neptune",
    "aim.pytorch_lightning.AimLogger": "aim",
    "targetprop.app.loggers.trackio.TrackioLogger": "trackio",
}
"""What loggers of others need, which is not installed with this package."""
