"""Learners in loops that other people wrote: `loss.backward()` as a step, modules of Lightning, states in tensors.

Nothing here imports a loop's package: what a loop calls is known by its name.
"""
