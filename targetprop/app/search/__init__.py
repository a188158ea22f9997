"""Searches for good numbers, by Optuna: each trial is a run, and what it gave decides what is tried next."""
