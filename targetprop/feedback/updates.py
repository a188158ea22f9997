"""Which path a pair's feedback learning takes: the closed form where there is one, else autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from targetprop.algorithms import Recipe
from targetprop.feedback.rules import Draw, FeedbackLoss, OutputNoise, l_drl, l_drl_gradient, output_noise
from targetprop.layers.maps import linear_map
from targetprop.network.linear_feedback import RESHAPING, FeedbackMap, LinearPart
from targetprop.network.network import PairedNetwork, Trace
from targetprop.network.pair import Pair

Update = Callable[[Draw], Tensor]
"""Sets `.grad` of a twin's weights for the noise it draws, and returns the loss (a scalar)."""


DIAGONAL = (nn.ELU, nn.Tanh, nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.MaxPool2d, *RESHAPING)
"""Layers above the map for which the diagonal form of the expectation is good (see `rules/expected.py`)."""


def maps_for(rule: str, recipe: Recipe, pair: Pair) -> tuple[FeedbackMap, ...]:
    """The maps of a pair whose feedback learns by this rule without a loss; none of any other pair."""
    if recipe.feedback != rule or recipe.feedback_loss is None:
        return ()
    if rule == "kolen_pollack" and any(linear_map(each.layer) is None for each in pair.maps):
        return ()
    return tuple(each for each in pair.maps if each.map.map.weight.requires_grad)


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


def mean_update(update: Update, parameters: Sequence[nn.Parameter], draws: Sequence[Draw]) -> Tensor:
    """Set the `.grad` of a twin's parameters to the mean over several draws of noise; returns the mean loss."""
    loss = update(draws[0])
    if len(draws) == 1:
        return loss
    learned = [p for p in parameters if p.grad is not None]
    gradients = [cast(Tensor, p.grad) for p in learned]
    for draw in draws[1:]:
        loss = loss + update(draw)
        for total, parameter in zip(gradients, learned, strict=True):
            total.add_(cast(Tensor, parameter.grad))
    for total, parameter in zip(gradients, learned, strict=True):
        parameter.grad = total.div_(len(draws))
    return loss / len(draws)


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
        if maps := maps_for(rule, recipe, pair):
            return rule if len(maps) == 1 else f"{rule}, each of its {len(maps)} linear maps by itself"
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
