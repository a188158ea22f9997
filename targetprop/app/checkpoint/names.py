"""Names of checkpoint files."""

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
