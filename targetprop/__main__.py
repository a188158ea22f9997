"""The command `targetprop`, which `python -m targetprop` is, too: a training run, or what is made of many of them."""

from __future__ import annotations

import sys

OF_MANY_RUNS = ("compare", "report", "leaderboard")
"""Commands that are no training run."""


def main() -> None:
    """Train as `python main.py` does, do what one of `OF_MANY_RUNS` says, or compute a published figure."""
    if sys.argv[1:2] and sys.argv[1] in OF_MANY_RUNS:
        from targetprop.compare.cli import main as of_many_runs  # here, because no training needs it

        of_many_runs(sys.argv[1:])
    elif sys.argv[1:2] == ["figure"]:
        from targetprop.published.cli import main as published

        published(sys.argv[2:])
    else:
        from targetprop.app.cli import main as train

        train()


if __name__ == "__main__":
    main()
