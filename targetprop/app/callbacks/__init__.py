"""Observers of a training run, each in its own file. They change neither gradients nor random numbers."""
