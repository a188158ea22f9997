"""The commands `targetprop predict`, `evaluate` and `export`: what a run left behind, put to use."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targetprop.app.waiting import set_wait_policy
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.app.saved.load import Trained

PREDICT = """Show a trained network new examples.

    targetprop predict runs/2026-11-27/12-00-00-000000 seven.png digits.npy folder/

IMAGES are PNG or JPEG files of the size of the run's images, arrays of NumPy (.npy) of one example or several, or
folders of such files. Images are normalised as in the run; of an array they have to be uint8 of 0 to 255. For data that
are no images, arrays are floats, taken as they are, or tokens, whole numbers."""
EVALUATE = """Measure a trained network on the validation and test data of its run once more. Nothing is written."""
EXPORT = """Write a trained network to a file that needs nothing of targetprop.

    targetprop export runs/2026-11-27/12-00-00-000000 --to onnx

The network takes what training batches are: images normalised as this command says when it ends."""
TO = ("state_dict", "safetensors", "torch_export", "onnx")
SHOWN = 3
"""Classes beside each other in the table of `predict`."""


def predict(arguments: Sequence[str]) -> None:
    """`targetprop predict`."""
    part = _parser("predict", PREDICT)
    part.add_argument("images", nargs="+", type=Path, metavar="IMAGES", help="files, or folders of them")
    part.add_argument("--resize", action="store_true", help="scale images of another size, without regard to shape")
    part.add_argument("--json", action="store_true", help="all probabilities, or all outputs, as JSON")
    _do(part, arguments, _predict)


def evaluate(arguments: Sequence[str]) -> None:
    """`targetprop evaluate`."""
    part = _parser("evaluate", EVALUATE)
    part.add_argument("--data-dir", type=Path, metavar="DIR", help="where the data sets are now")
    part.add_argument("--json", action="store_true", help="the results as JSON")
    _do(part, arguments, _evaluate)


def export(arguments: Sequence[str]) -> None:
    """`targetprop export`."""
    part = _parser("export", EXPORT)
    part.add_argument("--to", required=True, choices=TO, help="what kind of file")
    part.add_argument(
        "--output", type=Path, metavar="FILE", help="network.SUFFIX in the directory of the run otherwise"
    )
    _do(part, arguments, _export)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(f"targetprop {name}", description=description, formatter_class=raw)
    made.add_argument("run", type=Path, metavar="RUN_DIR", help="directory of a run, or a file of a checkpoint")
    which = "of the best validation, if there was one, or the last"
    made.add_argument("--checkpoint", choices=("best", "last"), default="best", help=which)
    return made


def _do(parser: argparse.ArgumentParser, arguments: Sequence[str], work: Any) -> None:
    options = parser.parse_args(arguments)
    set_wait_policy(os.environ)  # nothing has imported torch yet
    try:
        from targetprop.app.quiet import quiet_warnings
        from targetprop.app.saved.load import load  # here, so that --help and mistakes answer at once

        quiet_warnings()
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        work(load(options.run, options.checkpoint), options)
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever reads this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _predict(trained: Trained, options: argparse.Namespace) -> None:
    from targetprop.app.saved.examples import read
    from targetprop.app.saved.predictions import as_json, table

    examples = read(options.images, trained.data, resize=options.resize)
    outputs = trained.predict(examples.values)
    if options.json:
        print(json.dumps(as_json(examples.names, outputs, trained.data), indent=2))
    else:
        _print(table(examples.names, outputs, trained.data, SHOWN))


def _evaluate(trained: Trained, options: argparse.Namespace) -> None:
    from targetprop.app.saved.evaluate import data_of, evaluate_again

    datamodule = data_of(trained, options.data_dir)
    results = evaluate_again(trained, datamodule)
    if options.json:
        print(json.dumps({part: vars(each) for part, each in results.items()}, indent=2))
    else:
        print(f"{trained.path}")
        _print(trained.module.task.table(results, datamodule.classes or (), datamodule.note))


def _export(trained: Trained, options: argparse.Namespace) -> None:
    from targetprop.app.checkpoint.find import run_of
    from targetprop.app.saved.export import FORMATS, export, input_type

    kind = FORMATS[options.to]
    path = options.output or run_of(trained.path) / f"network{kind.suffix}"
    export(trained, options.to, path)
    print(f"{path}: opened by {kind.opened_by}.")
    shape = ", ".join(map(str, ("batch", *trained.data.shape)))
    how = "as it is" if trained.data.vocabulary is None else trained.data.kind
    if trained.data.is_images:
        how = f"(pixel / 255 - mean) / std, mean {list(trained.data.mean or ())}, std {list(trained.data.std or ())}"
    print(f"Input: ({shape}), {str(input_type(trained, options.to)).removeprefix('torch.')}: {how}.")
    if trained.data.classes:
        made = ", ".join(map(str, ("batch", *trained.module.task.output_shape(trained.data))))
        print(f"Output: ({made}), the larger the likelier: {_listed(trained.data.classes)}.")


def _listed(classes: Sequence[str]) -> str:
    """Names of classes in one line, those that are no print spelled out."""
    return ", ".join(each if each.isprintable() and each.strip() else repr(each) for each in classes)


def _print(table: Any) -> None:
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
