"""The checkpoint that is best in validation, through resumes too."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint so far, also when a run goes on in another directory.

    Lightning would forget the best score there, so that the first epoch after a resume would always become the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best so far; its file stays where it is."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})
