"""Settings beside the groups."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import NULL, TRUTH, WORD, choice, list_of, whole

STOP, REWIND = "stop", "rewind"
VIEWS = ("mirror", "mirror_and_shift")
"""Names of `data.views.VIEWS`, which would have torch imported for them."""
ANSWERS = (STOP, REWIND)
"""What a run may do that diverges."""

PLAIN: Keys = {
    "seed": Key(whole(0, 2**32 - 1), "of weights, order, augmentation and noise; the same seed gives the same run"),
    "data_dir": Key(WORD, "folder where data sets lie, or are downloaded to"),
    "train": Key(TRUTH, "whether to train; false only evaluates `ckpt_path`"),
    "test": Key(TRUTH, "whether to evaluate the best checkpoint on validation and test set at the end"),
    "views": Key(
        choice(*VIEWS) | NULL, "by which the mean of the logits of several views of an image is evaluated, too"
    ),
    "ckpt_path": Key(
        WORD | NULL,
        "what to go on from, or to evaluate: `last`, `best` or `auto` of this run's directory, another's, or a file",
    ),
    "on_divergence": Key(
        choice(*ANSWERS),
        "what becomes of a run that diverges: `rewind` goes back to its last checkpoint, with half the rates",
    ),
    "task_name": Key(WORD, "what pictures and loggers call the run; by itself the choices of model, network and data"),
    "tags": Key(list_of(WORD, "words"), "for loggers that have some"),
    "optimized_metric": Key(
        WORD | NULL,
        "what a search maximises, or minimises where less is better: `validation/accuracy`, `test/accuracy`, "
        "`validation/mse`, `test/bits` and the like; null is accuracy, the share of variance explained, or bits per "
        "token, of validation where there is one",
    ),
    "print_config": Key(TRUTH, "whether a run begins with its whole configuration, in place of a few lines of it"),
    "output_dir": Key(WORD, "folder of all that the run writes"),
    "overwrite": Key(TRUTH, "whether what another run left in that folder is put aside"),
}
