"""The version, also for what a checkpoint records of the program that wrote it."""

__version__ = "0.2.0"
