"""Which path a pair's feedback learning takes: the closed form where there is one, else autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from targetprop.linear_part import RESHAPING, LinearPart
from targetprop.maps import linear_map
from targetprop.network import PairedNetwork, Trace
from targetprop.pair import Pair
from targetprop.recipes import Recipe
from targetprop.rules import Draw, FeedbackLoss, OutputNoise, l_drl, l_drl_gradient, output_noise

Update = Callable[[Draw], Tensor]
"""Sets `.grad` of a twin's weights for the noise it draws, and returns the loss (a scalar)."""


DIAGONAL = (nn.ELU, nn.Tanh, nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.MaxPool2d, *RESHAPING)
"""Layers above the map for which the diagonal form of the expectation is good (see `rules/expected.py`)."""


def part_for(rule: str, recipe: Recipe, pair: Pair) -> LinearPart | None:
    """The linear part of a pair whose feedback learns by this rule without a loss; None for any other pair."""
    part = pair.linear
    if recipe.feedback != rule or recipe.feedback_loss is None or not isinstance(part, LinearPart):
        return None
    if rule == "kolen_pollack" and linear_map(part.layers[part.position]) is None:
        return None
    return part if part.map.map.weight.requires_grad else None


def feedback_update(recipe: Recipe, pair: Pair, trace: Trace, sigma: float) -> Update | None:
    """The updates of one pair on one batch; None if it has nothing to learn, or no loss to learn from."""
    if recipe.feedback_loss is None or not any(p.requires_grad for p in pair.feedback_parameters()):
        return None
    part = pair.linear
    if isinstance(part, LinearPart) and _has_closed_form(recipe):
        moments = _is_expected(recipe, part)
        expected = output_noise(part, trace, sigma, diagonal=_is_diagonal(part)) if moments else None
        return _closed_form(pair, part, trace, expected)
    return _autograd(recipe.feedback_loss, pair, trace)


def explain(network: PairedNetwork, recipe: Recipe) -> list[str]:
    """For each pair, which path its feedback learning takes by this recipe, and why."""
    return [f"Block {pair.name}: {_path(recipe, pair)}" for pair in network.pairs]


def _path(recipe: Recipe, pair: Pair) -> str:
    if pair.twin is None:
        return "no feedback, no target goes down through it"
    if recipe.feedback_loss is None:
        return "feedback stays as it is, the recipe trains none"
    if not any(p.requires_grad for p in pair.feedback_parameters()):
        return "feedback stays as it is, its weights are frozen"
    for rule in ("amortised", "kolen_pollack"):
        if part_for(rule, recipe, pair):
            return rule
    if not _has_closed_form(recipe):
        return "autograd, because the recipe asks for the textbook path or its loss has no closed form"
    if isinstance(pair.linear, str):
        return f"autograd, because {pair.linear}"
    if recipe.feedback != "expected":
        return "closed form"
    if not _is_expected(recipe, pair.linear):
        return "closed form, second term sampled, because output noise does not stay independent from unit to unit"
    return f"closed form, second term in expectation, {'diagonal' if _is_diagonal(pair.linear) else 'with its mean'}"


def _has_closed_form(recipe: Recipe) -> bool:
    return recipe.feedback_loss is l_drl and recipe.feedback != "textbook"


def _is_expected(recipe: Recipe, part: LinearPart) -> bool:
    return recipe.feedback == "expected" and part.unitwise


def _is_diagonal(part: LinearPart) -> bool:
    return all(isinstance(layer, DIAGONAL) for layer in part.layers[part.position + 1 :])


def _closed_form(pair: Pair, part: LinearPart, trace: Trace, expected: OutputNoise | None) -> Update:
    clean = part.features(trace.y, trace.context)
    weight, bias = part.map.map.weight, part.map.map.bias

    def update(draw: Draw) -> Tensor:
        gradient, loss = l_drl_gradient(pair, part, trace, clean, draw, expected)
        if weight.requires_grad:
            weight.grad = gradient
        if bias is not None and bias.requires_grad:
            bias.grad = torch.zeros_like(bias)
        return loss

    return update


def _autograd(loss_of: FeedbackLoss, pair: Pair, trace: Trace) -> Update:
    parameters = [p for p in pair.feedback_parameters() if p.requires_grad]

    def update(draw: Draw) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        loss = loss_of(pair, trace, draw)
        torch.autograd.backward(loss, inputs=parameters)
        return loss.detach()

    return update
