"""What a module's forward does, as a graph of its layers and of functions, by torch.fx.

Layers with a rule are nodes, and so are functions of tensors. A forward is traced in training and in evaluation mode;
both must make the same graph, and only settings of functions may differ, such as whether dropout is on.
"""

from __future__ import annotations

import dis
import linecache
import operator
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn

from targetprop.layers.functions import name_of
from targetprop.layers.lookup import Opaque, is_hooked, rule_of
from targetprop.layers.operation import Line, Program, Ref
from targetprop.layers.sequence import SequenceRule
from targetprop.network.expansions import EXPANSIONS
from targetprop.network.in_place import IN_PLACE, out_of_place
from targetprop.network.words import WAYS_OUT, own_name
from targetprop.utils.errors import UserError

WRAPPERS = (torch.jit.ScriptModule, nn.DataParallel, nn.parallel.DistributedDataParallel)
"""What hides its layers; see also `targetprop.utils.compiled`."""
FACTORIES = ("arange", "zeros", "ones", "full", "empty", "eye", "linspace", "rand", "randn", "tensor")
"""Functions of torch that make tensors of sizes that may be traced, which torch.fx does not notice by itself."""
KINDS: Mapping[str, Any] = {
    "call_function": "function", "call_method": "method", "call_module": "module", "get_attr": "tensor",
}  # fmt: skip


@dataclass
class Traced:
    """A module's forward as a graph.

    Attributes:
        root: holds what the nodes name.
        training, evaluation: the graph in either mode, node by node the same.
        containers: the modules whose forward was traced through.
        outputs: by name of each module that was called, what it gave (the last time).
    """

    root: nn.Module
    training: fx.Graph
    evaluation: fx.Graph
    containers: list[nn.Module]
    outputs: dict[str, fx.Node]

    @cached_property
    def _twins(self) -> dict[fx.Node, fx.Node]:
        return dict(zip(self.training.nodes, self.evaluation.nodes, strict=True))

    def twin(self, node: fx.Node) -> fx.Node:
        """The same node in evaluation mode."""
        return self._twins[node]

    def held(self, node: fx.Node) -> Any:
        """What a `get_attr` node stands for."""
        return operator.attrgetter(str(node.target))(self.root)

    def program(self, node: fx.Node, operands: Sequence[fx.Node]) -> Program:
        """What computes a node from these others, on the module's own parameters and buffers."""
        number = {each: i for i, each in enumerate(operands)}
        lines: list[Line] = []
        held: dict[str, nn.Module | Tensor] = {}

        def add(each: fx.Node) -> None:
            for before in each.all_input_nodes:
                if before not in number:
                    add(before)
            args, kwargs = cast(Any, fx.node.map_arg)((each.args, each.kwargs), lambda before: Ref(number[before]))
            lines.append(Line(KINDS[each.op], self._target(each, held), args, dict(kwargs)))
            number[each] = len(operands) + len(lines) - 1

        add(node)
        return Program(lines, held)

    def _target(self, node: fx.Node, held: dict[str, nn.Module | Tensor]) -> Any:
        """What a line names, which is held if it is a module or a tensor."""
        if node.op not in ("call_module", "get_attr"):
            return node.target
        name = str(node.target).replace(".", "_")
        held[name] = self.held(node)
        return name

    def form(self, node: fx.Node, *, transposed: bool = False) -> nn.Parameter | Program:
        """A parameter, or what computes a tensor from parameters."""
        if node.op == "get_attr" and isinstance(self.held(node), nn.Parameter) and not transposed:
            return cast(nn.Parameter, self.held(node))
        made = self.program(node, [])
        if transposed:
            made.lines = (*made.lines, Line("method", "t", (Ref(len(made.lines) - 1),)))
        return made

    @torch.no_grad()
    def shape(self, node: fx.Node) -> torch.Size:
        """Of a tensor that is computed from parameters alone."""
        value: Tensor = self.program(node, [])()
        return value.shape


class _OneInput(nn.Module):
    """Called on one tensor, so that all other arguments of the model have their defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class Traceable(fx.Proxy):
    """What stands for a tensor while it is traced: `x += y` is told from `x = x + y`, which torch.fx does not."""


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def write(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return write


for _function in IN_PLACE:
    setattr(Traceable, f"__{_function.__name__}__", _in_place(_function))


class Held(Traceable):
    """A parameter or buffer while it is traced: its shape and type are known."""

    def __init__(self, tracer: fx.Tracer, node: fx.Node, value: Tensor) -> None:
        super().__init__(node, tracer)
        self.value = value

    @property
    def shape(self) -> torch.Size:
        """As of the tensor."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """As of the tensor."""
        return self.value.dim()

    @property
    def dtype(self) -> torch.dtype:
        """As of the tensor."""
        return self.value.dtype

    def size(self, dim: int | None = None) -> Any:
        """As of the tensor."""
        return self.value.shape if dim is None else self.value.shape[dim]

    def dim(self) -> int:
        """As of the tensor."""
        return self.value.dim()

    def numel(self) -> int:
        """As of the tensor."""
        return self.value.numel()


class _Tracer(fx.Tracer):
    """Stops at layers with a rule, and writes out the modules in `EXPANSIONS`."""

    def __init__(self) -> None:
        super().__init__()
        self.containers: dict[int, nn.Module] = {}
        self.outputs: dict[str, fx.Node] = {}
        self._within = [""]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Traceable(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["within"] = own_name(self._within[-1])
        return node

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        rule = rule_of(m)
        if not isinstance(rule, Opaque):
            return not isinstance(rule, SequenceRule)
        if rule.known is not None:
            return True
        return type(m).__module__.startswith("torch.") and not list(m.children()) and type(m) not in EXPANSIONS

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name):
            found = super().call_module(m, forward, args, kwargs)
        else:
            _refuse_hooks(m, name)
            self.containers[id(m)] = m
            self._within.append(name)
            found = EXPANSIONS[type(m)](m, *args, **kwargs) if type(m) in EXPANSIONS else m.forward(*args, **kwargs)
            self._within.pop()
        if isinstance(found, fx.Proxy):
            self.outputs[own_name(name)] = found.node
        return found

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if not isinstance(attr_val, Tensor):
            return attr_val
        for name, each in (*self.root.named_parameters(), *self.root.named_buffers()):
            if each is attr_val:
                if name not in parameter_proxy_cache:
                    node = self.create_node("get_attr", name, (), {})
                    parameter_proxy_cache[name] = Held(self, node, attr_val)
                return parameter_proxy_cache[name]
        return attr_val

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        count = _count(obj.node)
        return super().iter(obj) if count is None else iter([cast(Any, obj)[i] for i in range(count)])

    def to_bool(self, obj: fx.Proxy) -> bool:
        passed = _passing(sys._getframe(2))
        return super().to_bool(obj) if passed is None else passed


def _count(node: fx.Node) -> int | None:
    """How many tensors a function gives, where its arguments tell."""
    if name_of(node.target) not in ("chunk", "tensor_split"):
        return None
    count = node.args[1] if len(node.args) > 1 else node.kwargs.get("chunks", node.kwargs.get("sections"))
    return count if isinstance(count, int) else None


def _passing(frame: FrameType) -> bool | None:
    """The truth that lets an assertion, or an `if` that does nothing but raise, pass; None of other conditions."""
    code = {each.offset: each for each in dis.get_instructions(frame.f_code)}
    offsets = sorted(code)
    jump = next(at for at in offsets if at >= frame.f_lasti and "JUMP" in code[at].opname)
    target = code[jump].argval
    behind = [code[at] for at in offsets if at > jump]
    skipped = [each for each in behind if each.offset < target]
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    if line.startswith("assert ") or any(
        "ASSERTION_ERROR" in each.opname or each.argval is AssertionError for each in (behind[0], code[target])
    ):
        return True
    only_raises = skipped and skipped[-1].opname == "RAISE_VARARGS" and not any("JUMP" in e.opname for e in skipped)
    return "TRUE" in code[jump].opname if only_raises else None


def trace(model: nn.Module) -> Traced:
    """Trace a module that takes one tensor (batch, ...).

    Raises:
        UserError: it cannot be traced; says where, and what to do.
    """
    if isinstance(model, WRAPPERS):
        raise UserError(
            f"expected a module whose forward can be traced, got {type(model).__name__}: the learner must see every "
            "layer; give the network that was wrapped.",
            key="network",
        )
    modes = {each: each.training for each in model.modules()}
    try:
        evaluating, root = _OneInput(model).eval(), _OneInput(model)
        evaluation, _ = _graph(evaluating)
        training, tracer = _graph(root.train())
    finally:
        for each, mode in modes.items():
            each.training = mode
    if not _same_constants(root, evaluating):
        raise UserError(
            f"{type(model).__name__}.forward makes tensors that differ every time, as of random numbers, "
            f"which would be constants: {WAYS_OUT}.",
            key="network",
        )
    if not _alike(training, evaluation):
        raise UserError(
            f"{type(model).__name__}.forward takes other ways in training than in evaluation: {WAYS_OUT}.",
            key="network",
        )
    return Traced(root, training, evaluation, list(tracer.containers.values()), tracer.outputs)


def _graph(root: _OneInput) -> tuple[fx.Graph, _Tracer]:
    tracer = _Tracer()
    name = type(root.model).__name__
    try:
        with _factories_traced():
            graph = tracer.trace(root)
    except UserError as error:
        raise error if error.key else UserError(error.message, key="network") from None
    except Exception as error:  # whatever a forward does with what stands for a tensor while it is traced
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UserError(
            f"{name} cannot be traced, {_place(error)}: {reason.rstrip('.')}; {WAYS_OUT}.", key="network"
        ) from error
    out_of_place(graph, root)
    (output,) = (node for node in graph.nodes if node.op == "output")
    if not isinstance(output.args[0], fx.Node):
        kind = type(output.args[0]).__name__
        raise UserError(
            f"{name}.forward gives a {kind.removeprefix('immutable_')}, a learner needs one tensor: {WAYS_OUT}.",
            key="network",
        )
    return graph, tracer


@contextmanager
def _factories_traced() -> Iterator[None]:
    """Within it, tensors made of traced sizes are traced."""

    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            flat = torch.utils._pytree.tree_leaves((args, kwargs))
            proxy = next((each for each in flat if isinstance(each, fx.Proxy)), None)
            if proxy is None:
                return function(*args, **kwargs)
            return proxy.tracer.create_proxy("call_function", function, args, kwargs)

        return call

    with ExitStack() as stack:
        for name in FACTORIES:
            stack.enter_context(patch.object(torch, name, traced(getattr(torch, name))))
        yield


def _refuse_hooks(module: nn.Module, name: str) -> None:
    if is_hooked(module, itself_alone=True):
        raise UserError(
            f"{type(module).__name__} {own_name(name)}: a hook on it is not seen, hook its layers instead.",
            key="network",
        )


def _place(error: Exception) -> str:
    """Where in the user's code it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if "/torch/" not in each.filename and "/targetprop/" not in each.filename]
    if not own:
        return "in its forward"
    last = own[-1]
    return f"in line {last.lineno} of {last.filename.rpartition('/')[2]}, `{last.line}`"


def _alike(training: fx.Graph, evaluation: fx.Graph) -> bool:
    """Whether both have the same nodes with the same operands."""
    pairs = list(zip(training.nodes, evaluation.nodes, strict=False))
    return len(training.nodes) == len(evaluation.nodes) and all(
        (a.op, a.target, a.name) == (b.op, b.target, b.name)
        and [each.name for each in a.all_input_nodes] == [each.name for each in b.all_input_nodes]
        for a, b in pairs
    )


def _same_constants(*roots: nn.Module) -> bool:
    """Whether tensors that a forward made while it was traced are the same in either mode."""
    made = [{name: each for name, each in vars(root).items() if isinstance(each, Tensor)} for root in roots]
    return made[0].keys() == made[1].keys() and all(torch.equal(each, made[1][name]) for name, each in made[0].items())
