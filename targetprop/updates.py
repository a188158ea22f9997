"""Which path a pair's feedback learning takes: the closed form where there is one, else autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from targetprop.linear_part import LinearPart
from targetprop.network import PairedNetwork, Trace
from targetprop.pair import Pair
from targetprop.recipes import Recipe
from targetprop.rules import Draw, l_drl, l_drl_gradient

Update = Callable[[Draw], Tensor]
"""Sets `.grad` of a twin's weights for the noise it draws, and returns the loss (a scalar)."""


def feedback_update(recipe: Recipe, pair: Pair, trace: Trace) -> Update | None:
    """The updates of one pair on one batch; None if it has nothing to learn, or no loss to learn from."""
    if recipe.feedback_loss is None or not any(p.requires_grad for p in pair.feedback_parameters()):
        return None
    if isinstance(pair.linear, LinearPart) and takes_closed_form(recipe, pair):
        return _closed_form(pair, pair.linear, trace)
    return _autograd(recipe, pair, trace)


def takes_closed_form(recipe: Recipe, pair: Pair) -> bool:
    """Whether the recipe's loss has a closed form for this pair."""
    return recipe.feedback_loss is l_drl and not recipe.textbook and isinstance(pair.linear, LinearPart)


def explain(network: PairedNetwork, recipe: Recipe) -> list[str]:
    """For each pair, which path its feedback learning takes by this recipe, and why."""
    return [f"Block {pair.name}: {_path(recipe, pair)}" for pair in network.pairs]


def _path(recipe: Recipe, pair: Pair) -> str:
    if pair.twin is None:
        return "no feedback, there is no target below it"
    if recipe.feedback_loss is None:
        return "feedback stays as it is, the recipe trains none"
    if takes_closed_form(recipe, pair):
        return "closed form"
    if isinstance(pair.linear, str):
        return f"autograd, because {pair.linear}"
    return "autograd, because the recipe asks for the textbook path or its loss has no closed form"


def _closed_form(pair: Pair, part: LinearPart, trace: Trace) -> Update:
    clean = part.features(trace.y, trace.context).detach()
    weight, bias = part.map.map.weight, part.map.map.bias

    def update(draw: Draw) -> Tensor:
        weight.grad, loss = l_drl_gradient(pair, part, trace, clean, draw)
        if bias is not None:
            bias.grad = torch.zeros_like(bias)
        return loss

    return update


def _autograd(recipe: Recipe, pair: Pair, trace: Trace) -> Update:
    parameters = [p for p in pair.feedback_parameters() if p.requires_grad]
    assert recipe.feedback_loss is not None
    loss_of = recipe.feedback_loss

    def update(draw: Draw) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        loss = loss_of(pair, trace, draw)
        torch.autograd.backward(loss, inputs=parameters)
        return loss.detach()

    return update
