"""Settings of the task."""

from __future__ import annotations

from targetprop.app.schema.callbacks import METRIC, MODE
from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import WORD

NAMED: Keys = {"monitor": METRIC, "mode": MODE}
TARGETS: dict[str, Keys] = {
    "targetprop.app.task.Classification": NAMED,
    "targetprop.app.task.Regression": NAMED,
    "targetprop.app.tokens.Tokens": {**NAMED, "unit": Key(WORD, "what the tokens are, in reports")},
}
