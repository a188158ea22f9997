"""Settings of the models, beside the numbers of algorithms: those are checked by the rules that have them."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import MAPPING, WORD, Kind, number

ALGORITHM = Kind("a name, or the import path of an Algorithm", WORD.takes)
HPARAMS = Key(MAPPING, "numbers of the algorithm and of the forward optimiser")
COMMON: Keys = {
    "loss": Key(WORD, "import path of the loss, a function of logits and labels"),
    "label_smoothing": Key(number(least=0, below=1), "share of each label that is spread over all classes"),
    "feedback_epochs": Key(MAPPING, "epochs in which the feedback learns and nothing else: before, after_each, alone"),
    "hparams": HPARAMS,
}
TARGETS: dict[str, Keys] = {
    "targetprop.app.models.target_propagation": {
        "algorithm": Key(ALGORITHM, "of the published ones, or of your own"),
        **COMMON,
    },
    "targetprop.app.models.other_rule": {
        "rule": Key(WORD, "one that is no sweep of targets"),
        **COMMON,
    },
    "targetprop.app.models.as_printed": COMMON,
    "targetprop.app.models.backprop": COMMON,
}
