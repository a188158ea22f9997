"""A trained network as a file that needs nothing of ours: weights, or a program for torch.export or ONNX."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from targetprop.utils.errors import UserError
from targetprop.utils.files import whole_file

if TYPE_CHECKING:
    from targetprop.app.saved.load import Trained

EXAMPLES = 2
"""In a batch by which a program is traced: torch.export takes a size of 1 for one that never changes."""


def state_dict(trained: Trained) -> dict[str, Tensor]:
    """The network's weights and statistics by its own names, as copies on the CPU."""
    contiguous = torch.contiguous_format
    state: Mapping[str, Tensor] = trained.network.state_dict()
    return {name: value.detach().cpu().clone(memory_format=contiguous) for name, value in state.items()}


def type_of(trained: Trained, to: str) -> torch.dtype:
    """The type of weights in a file of this kind: the network's, of ONNX float32.

    ONNX's runtimes have no convolution of doubles.
    """
    return torch.float32 if to == "onnx" else next(trained.network.parameters()).dtype


def input_type(trained: Trained, to: str) -> torch.dtype:
    """The type of inputs for a file of this kind: that of the weights, of tokens int64."""
    return type_of(trained, to) if trained.data.vocabulary is None else trained.data.dtype


def program(trained: Trained, to: str) -> torch.export.ExportedProgram:
    """The network in evaluation mode as a program of torch.export, for batches of any size, with a file's types.

    Raises:
        UserError: torch.export cannot follow the network.
    """
    network = _alone(trained).to(type_of(trained, to))
    x = torch.zeros(EXAMPLES, *trained.data.shape, dtype=input_type(trained, to))
    batch = torch.export.Dim("batch", min=1)
    try:
        made = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
    except Exception as error:  # whatever a layer that cannot be followed leads to
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"torch.export cannot follow this network: {reason}", key="--to") from error
    _forget_where_it_came_from(made)
    return made


def to_state_dict(trained: Trained, path: Path) -> None:
    """A file for torch.load(path, weights_only=True)."""
    torch.save(state_dict(trained), path)


def to_safetensors(trained: Trained, path: Path) -> None:
    """A file for safetensors.torch.load_file."""
    from safetensors.torch import save  # here, because it is an extra

    path.write_bytes(save(state_dict(trained)))


def to_torch_export(trained: Trained, path: Path) -> None:
    """A file for torch.export.load(path).module()."""
    made = program(trained, "torch_export")
    with path.open("wb") as file:
        torch.export.save(made, file)


def to_onnx(trained: Trained, path: Path) -> None:
    """A file for ONNX: "input" (batch, ...), "output" (batch, outputs), weights within it."""
    import onnx  # here, because it is an extra

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of operators of packages that nobody asked for
    followed = program(trained, "onnx")
    made = torch.onnx.export(followed, dynamo=True, verbose=False, input_names=["input"], output_names=["output"])
    assert made is not None
    model = made.model_proto
    for each in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del each.metadata_props[:]
    for named in (*model.graph.node, *model.graph.input, *model.graph.output, model.graph):
        named.doc_string = ""
    model.graph.name = "network"
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: of its name.
        write: writes one.
        packages: that writing it needs, beside those that are always there.
        opened_by: how it is read.
    """

    suffix: str
    write: Callable[[Trained, Path], None]
    packages: tuple[str, ...]
    opened_by: str


FORMATS: Mapping[str, Format] = {
    "state_dict": Format(".pt", to_state_dict, (), "torch.load(FILE, weights_only=True)"),
    "safetensors": Format(".safetensors", to_safetensors, ("safetensors",), "safetensors.torch.load_file(FILE)"),
    "torch_export": Format(".pt2", to_torch_export, (), "torch.export.load(FILE).module()"),
    "onnx": Format(".onnx", to_onnx, ("onnx", "onnxscript"), "onnxruntime.InferenceSession(FILE)"),
}


def export(trained: Trained, to: str, path: Path) -> None:
    """Write a network's file, whole or not at all.

    Args:
        to: one of `FORMATS`.

    Raises:
        UserError: a package is missing, the network cannot be written so, or the file cannot be.
    """
    for package in FORMATS[to].packages:
        if find_spec(package) is None:
            raise UserError(f'{to} needs {package}: pip install "targetprop[export]"', key="--to")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            FORMATS[to].write(trained, partial)
    except OSError as error:
        raise UserError(f"it cannot be written: {error.strerror or error}", key=str(path)) from None


def _alone(trained: Trained) -> nn.Module:
    """A copy of the network in evaluation mode on the CPU, its weights in the order in which they are numbered."""
    network = copy.deepcopy(trained.network).cpu().eval()
    for each in (*network.parameters(), *network.buffers()):
        each.data = each.data.contiguous()
    return network


def _forget_where_it_came_from(made: torch.export.ExportedProgram) -> None:
    """Take names of classes, of files and lines of source out of a program: it computes the same without them."""
    for module in made.graph_module.modules():
        graph: Any = getattr(module, "graph", None)
        for node in () if graph is None else graph.nodes:
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
                node.meta.pop(key, None)
