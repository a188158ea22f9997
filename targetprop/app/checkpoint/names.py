"""Names of checkpoint files, and of the folder below a run's directory where they are."""

FOLDER = "checkpoints"
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
