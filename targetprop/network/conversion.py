"""A module's graph as layers in sequence.

A tensor through which all paths from the input to the output lead is an *articulation*. Between two of them stands a
layer, if that is all there is, or a `LayerGraph`. So any network is layers in sequence, and can be cut into blocks as
they are. Functions of the network's batch alone, without parameters, are no paths: no target comes down to the batch,
and whoever needs it looks at it (`LookAtBatch`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from torch import fx, nn

from targetprop.layers.base import Facts
from targetprop.layers.functions import BLIND, LINEAR, RANDOM, RESHAPING, SEVERAL, STRICT, SUMS, layer_of, name_of
from targetprop.layers.graph import LayerGraph
from targetprop.layers.operation import Batch, LookAtBatch, Operation
from targetprop.network.function_maps import map_layer
from targetprop.network.in_place import is_size
from targetprop.network.tracing import Traced, trace
from targetprop.network.words import WAYS_OUT, own_name
from targetprop.utils.errors import UserError, require, unknown


@dataclass(frozen=True)
class Converted:
    """A module as layers in sequence.

    Attributes:
        layers: which compute what the module does, on its own parameters.
        ends: numbers of the layers behind which a block ends; None where that is not said.
        containers: the modules whose forward the layers stand for.
        batch: that some of the layers look at; None if none does.
    """

    layers: list[nn.Module]
    ends: frozenset[int] | None
    containers: list[nn.Module]
    batch: Batch | None


def convert(model: nn.Module, blocks: Sequence[str] | None = None) -> Converted:
    """Trace a module, and make layers in sequence of it.

    Args:
        blocks: names of modules within it, behind the output of each of which a block ends.

    Raises:
        UserError: it cannot be traced, or not be cut there.
    """
    listed = blocks is None or (isinstance(blocks, Sequence) and not isinstance(blocks, str))
    require(listed, "blocks", "a list of names of modules in the network", blocks)
    traced = trace(model)
    nodes = Nodes(traced)
    articulations = nodes.articulations
    ends = None if blocks is None else frozenset(nodes.number_of(name) for name in blocks)
    layers = _Layers(traced, nodes)
    begins = [nodes.input, *articulations]
    made = [layers.between(*pair) for pair in zip(begins, articulations, strict=False)]
    looks = any(isinstance(each, LookAtBatch) for layer in made for each in layer.modules())
    return Converted(made, ends, traced.containers, layers.batch if looks else None)


class Nodes:
    """The nodes of a traced graph that are tensors on the way from the input to the output, and how they depend.

    All other nodes are computed within those that need them: sizes, constants, what parameters alone make, functions
    with several outputs, and those that no error comes back through.
    """

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        (self.input,) = (node for node in traced.training.nodes if node.op == "placeholder")
        (output,) = (node for node in traced.training.nodes if node.op == "output")
        self.output = cast(fx.Node, output.args[0])
        self._of_batch: dict[fx.Node, bool | None] = {}  # None: the values of the input are not looked at
        self.with_parameters: set[fx.Node] = set()
        for node in traced.training.nodes:
            self._look_at(node)
        if not self.is_on_the_way(self.output):
            raise UserError(f"the output does not follow from the input: {WAYS_OUT}.", key="network")

    def _look_at(self, node: fx.Node) -> None:
        """Whether it is a function of the batch alone, and whether parameters are in it."""
        inputs = node.all_input_nodes
        if node.op == "get_attr" and isinstance(self._traced.held(node), nn.Parameter):
            self.with_parameters.add(node)
        follow = [self._of_batch[each] for each in inputs if self._of_batch[each] is not None]
        if node.op == "placeholder":
            self._of_batch[node] = True
        elif not follow or is_size(node):
            self._of_batch[node] = None
            if node.op == "call_module" or any(each in self.with_parameters for each in inputs):
                self.with_parameters.add(node)
        else:
            alone = node.op != "call_module" and node.target not in RANDOM
            self._of_batch[node] = alone and all(follow) and not any(each in self.with_parameters for each in inputs)

    def is_on_the_way(self, node: fx.Node) -> bool:
        """Whether it is a tensor that follows from the input."""
        if self._of_batch[node] is None or node.op not in ("call_function", "call_method"):
            return self._of_batch[node] is not None
        name = name_of(node.target)
        return not (name in SEVERAL | BLIND or (name in ("max", "min") and _has_dim(node)))

    def operands(self, node: fx.Node) -> list[fx.Node]:
        """The tensors on the way that it is computed from, each once."""
        found: dict[fx.Node, None] = {}
        for each in node.all_input_nodes:
            found.update(dict.fromkeys([each] if self.is_on_the_way(each) else self.operands(each)))
        return list(found)

    def behind(self, end: fx.Node, begin: fx.Node | None = None) -> list[fx.Node]:
        """All tensors on the way that `end` is made of, in order, itself the last; not through `begin`."""
        seen, waiting = {end}, [end]
        while waiting:
            new = [each for each in self.operands(waiting.pop()) if each not in seen and each is not begin]
            seen.update(new)
            waiting += new
        return [node for node in self._traced.training.nodes if node in seen]

    @cached_property
    def articulations(self) -> list[fx.Node]:
        """Where all paths lead through one tensor, from the first behind the input to the output."""
        order = self.behind(self.output)
        number = {node: i for i, node in enumerate(order)}
        last_use = {node: number[node] for node in order}
        for node in order:
            for each in self.operands(node):
                last_use[each] = max(last_use[each], number[node])
        reach, candidates = 0, []
        for node in order:
            if number[node] >= reach and node is not self.input:
                candidates.append(node)
            if not self._of_batch[node]:
                reach = max(reach, last_use[node])
        chosen = [self.output]
        for node in reversed(candidates[:-1]):
            if node in self.behind(chosen[-1]):
                chosen.append(node)
        return chosen[::-1]

    def number_of(self, name: str) -> int:
        """Of the layer that ends with the output of the module of this name.

        Raises:
            UserError: there is none, or other paths lead past it.
        """
        outputs = self._traced.outputs
        if name not in outputs:
            raise unknown("blocks", name, [each for each in outputs if each])
        node = outputs[name]
        if node not in self.articulations:
            raise UserError(
                f"{name!r} is no place to cut, the output of {self._past(node)} leads past it: name a module that all "
                "paths lead through, such as the one around it, or none.",
                key="blocks",
            )
        return self.articulations.index(node)

    def _past(self, node: fx.Node) -> str:
        """What is used on both sides of a node."""
        order = self.behind(self.output)
        if node not in order:
            return "others"
        at = order.index(node)
        for later in order[at + 1 :]:
            for each in self.operands(later):
                if not self._of_batch[each] and order.index(each) < at:
                    return where(each)
        return "others"


class _Layers:
    """Makes layers of nodes.

    Attributes:
        batch: for those that look at it.
    """

    def __init__(self, traced: Traced, nodes: Nodes) -> None:
        self._traced, self._nodes = traced, nodes
        self.batch = Batch()

    def between(self, begin: fx.Node, end: fx.Node) -> nn.Module:
        """All that makes the tensor `end` of the tensor `begin`, as one layer."""
        inside = self._nodes.behind(end, begin)
        number = {begin: 0} | {node: i for i, node in enumerate(inside, 1)}
        sources = [
            () if node is self._nodes.input else tuple(number[each] for each in self._nodes.operands(node))
            for node in inside
        ]
        layers = [self._layer(node) for node in inside]
        return layers[0] if sources == [(0,)] else LayerGraph(layers, sources)

    def _layer(self, node: fx.Node) -> nn.Module:
        if node is self._nodes.input:
            return LookAtBatch(self.batch)
        if node.op == "call_module":
            return self._module(node)
        made = map_layer(self._traced, node, self._nodes.with_parameters)
        return made or self._as_layer(node) or self._operation(node)

    def _module(self, node: fx.Node) -> nn.Module:
        module = self._traced.root.get_submodule(str(node.target))
        if isinstance(module, nn.RNNBase):
            kind = type(module).__name__
            raise UserError(
                f"{where(node)} ({kind}) has its loop over time inside, and what comes down it is not known: use "
                f"nn.{kind}Cell in a loop over a known number of steps.",
                key="network",
            )
        if len(node.args) != 1 or node.kwargs or not self._nodes.is_on_the_way(cast(fx.Node, node.args[0])):
            raise UserError(
                f"{where(node)} ({type(module).__name__}) is called on more than one tensor, and what it computes is "
                f"not known: {WAYS_OUT}.",
                key="network",
            )
        return module

    def _as_layer(self, node: fx.Node) -> nn.Module | None:
        """A function that is a layer under another name."""
        arguments = [_arguments(each) for each in (node, self._traced.twin(node))]
        if not isinstance(node.args[0], fx.Node) or any(_nodes_in(each) for each in arguments):
            return None
        return layer_of(node.target, *arguments)

    def _operation(self, node: fx.Node) -> Operation:
        operands, twin = self._nodes.operands(node), self._traced.twin(node)
        training = self._traced.program(node, operands)
        evaluation = self._traced.program(twin, [self._traced.twin(each) for each in operands])
        differs = training.lines != evaluation.lines
        plain = len(operands) == 1 and not any(True for _ in training.parameters())
        name = name_of(node.target)
        random = any(each in RANDOM for each in training.targets)
        linear = name in LINEAR if plain else len(operands) > 1 and name in LINEAR | SUMS
        facts = Facts(linear, plain and name in RESHAPING, varies=random or differs)
        return Operation(
            name, training, evaluation if differs else None, operands=len(operands), facts=facts,
            any_memory_order=not any(name_of(each) in STRICT for each in training.targets),
        )  # fmt: skip


def where(node: fx.Node) -> str:
    """A node as the user may know it: the name of its module, or of a function and of the module that it stands in."""
    if node.op == "call_module":
        return repr(own_name(str(node.target)))
    within = node.meta.get("within")
    return f"{name_of(node.target)} in {within!r}" if within else f"{name_of(node.target)} in its forward"


def _has_dim(node: fx.Node) -> bool:
    """Whether a maximum is one over a dimension, which comes with its indices."""
    return "dim" in node.kwargs or any(isinstance(each, int) for each in node.args[1:])


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    """What a function is called with behind its first argument."""
    return node.args[1:], dict(node.kwargs)


def _nodes_in(arguments: Any) -> Iterable[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(arguments, found.append)
    return found
