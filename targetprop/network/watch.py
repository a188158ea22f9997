"""Notice that layers have changed since they were analysed: hooks came or went, or a layer was exchanged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from targetprop.layers.lookup import HOOKS


class Watch:
    """What an analysis of layers depends on and may change, read from torch's own dictionaries: every step looks.

    Args:
        blocks: whose layers are watched.
        containers: modules that are watched for themselves, without what is in them.
    """

    def __init__(self, blocks: Iterable[nn.Module], containers: Iterable[nn.Module]) -> None:
        inside = {id(each): each for block in blocks for each in block.modules()}
        everything = [*inside.values(), *containers]
        self._modules = everything
        self._owns = [vars(each) for each in everything]
        self._hooks = [own[name] for own in self._owns for name in HOOKS]
        self._children = [own["_modules"] for own in self._owns if own["_modules"]]
        self._parameters: list[dict[str, Any]] = [vars(each)["_parameters"] for each in inside.values()]
        self._seen = self._look()

    def has_noticed(self) -> bool:
        """Whether anything has changed since this watch was made."""
        return self._look() != self._seen

    def parameters(self) -> list[nn.Parameter]:
        """The parameters of the blocks as they are now, each once, in the order of the modules."""
        return list({id(p): p for own in self._parameters for p in own.values() if p is not None}.values())

    def _look(self) -> tuple[bool, list[bool], list[int], list[int], list[int], list[bool]]:
        return (
            torch_module._has_any_global_hook(),
            [bool(hooks) for hooks in self._hooks],
            [id(each.__class__) for each in self._modules],  # torch gives a parametrized layer another one
            [len(own) for own in self._owns],  # methods of its own
            [id(child) for children in self._children for child in children.values()],
            [
                bool(p._backward_hooks or p._post_accumulate_grad_hooks)
                for own in self._parameters
                for p in own.values()
                if p is not None
            ],
        )
