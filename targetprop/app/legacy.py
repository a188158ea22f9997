"""Command lines of the published code, as overrides of this one's configuration. They train by the same engine.

Two spellings are older than the present one:

    python main.py --config-path conf/reproduce --config-name cifar10_simple_vgg_dtp
    python main.py --batch-size 128 --C 128 128 256 256 512 --epochs 90 --path CIFAR-10 --scheduler ...

Present overrides (`trainer.limit_train_batches=2`) may follow both. The flags of the second one are set over
`reproduce=cifar10_simple_vgg_legacy`, which holds the values of flags that are not given.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from targetprop.utils.errors import UserError, require, unknown

HYDRA = (
    "--cfg", "--config-dir", "--config-name", "--config-path", "--experimental-rerun", "--help", "--hydra-help",
    "--info", "--multirun", "--package", "--resolve", "--run", "--shell-completion", "--version",
    "-c", "-cd", "-cn", "-cp", "-h", "-i", "-m", "-p", "-r", "-sc",
)  # fmt: skip
"""Options that are Hydra's own."""

NUMBERS = {
    "--batch-size": ("datamodule.batch_size", int),
    "--epochs": ("trainer.max_epochs", int),
    "--lr_f": ("model.hparams.f_optim.lr", float),
    "--beta": ("model.hparams.beta", float),
    "--wdecay": ("model.hparams.f_optim.weight_decay", float),
    "--seed": ("seed", int),
}
"""Flags with one number, and the keys they set."""

LISTS = {
    "--C": ("network.hparams.channels", int),
    "--iter": ("model.hparams.feedback_training_iterations", int),
    "--lr_b": ("model.hparams.b_optim.lr", float),
    "--noise": ("model.hparams.noise", float),
}
"""Flags with one number a block, in forward order: `--C` for every convolution, the others from the second block on."""

OTHERS = ("--activation", "--device-label", "--last-trial", "--path", "--scheduler")

OVERRIDE = re.compile(r"[^-].*=|~")
"""What a present override looks like."""


def translate(arguments: Sequence[str]) -> list[str]:
    """The command line `arguments` in the present spelling; one that is in it already comes back as it is.

    Raises:
        UserError: a flag that does not exist, with the nearest that do, or a value that does not fit.
    """
    if _has_flags(arguments):
        return _overrides(arguments)
    return _reproduced(arguments)


def claim_folder(arguments: Sequence[str]) -> list[str]:
    """The overrides that put the results into a folder of their own, as `--path` asks for; none without `--path`.

    The folder is PATH/Trial-k, k one more than the largest there is, and is made at once, so that trials that start
    together do not meet. `--last-trial` takes the one with the largest k again: to put aside what it holds, or to go on
    in it with ckpt_path=last.
    """
    if not _has_flags(arguments):
        return []
    flags, _ = _parse(arguments)
    if flags.path is None:
        return []
    taken = [int(each.name[6:]) for each in Path(flags.path).glob("Trial-*") if re.fullmatch(r"Trial-\d+", each.name)]
    if flags.last_trial:
        number = max(taken, default=1)
    else:
        number = max(taken, default=0) + 1
        while not _made(Path(flags.path) / f"Trial-{number}"):
            number += 1
    folder = f"hydra.run.dir={_quoted(f'{flags.path}/Trial-{number}')}"
    return [folder, "overwrite=true"] if flags.last_trial else [folder]


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"--path: {folder} cannot be made: {error.strerror}.") from None
    return True


def _has_flags(arguments: Sequence[str]) -> bool:
    return any(name not in HYDRA for name in _options(arguments))


def _options(arguments: Sequence[str]) -> list[str]:
    """Names of options: what begins with a dash and a letter, without a value after `=`."""
    return [each.partition("=")[0] for each in arguments if re.match(r"--?[A-Za-z]", each)]


def _overrides(arguments: Sequence[str]) -> list[str]:
    flags, overrides = _parse(arguments)
    values = vars(flags)
    made = ["reproduce=cifar10_simple_vgg_legacy"]
    for name, (key, _) in {**NUMBERS, **LISTS}.items():
        value = values[name]
        if value is not None:
            made.append(f"{key}=[{','.join(map(str, value))}]" if name in LISTS else f"{key}={value}")
    if flags.activation is not None:
        made.append(f"network.hparams.activation={_quoted(flags.activation)}")
    if flags.scheduler:
        made.append("scheduler=cosine")
    if flags.device_label is not None:
        made += _device(flags.device_label)
    command = shlex.join(["python", "main.py", *arguments])
    return [*made, f"callbacks.trial.command={_quoted(command)}", *overrides]


def _device(label: int) -> list[str]:
    """-1 is the CPU, k the GPU of that number: the only one that the run sees."""
    require(label >= -1, "--device-label", "the number of a GPU, or -1 for the CPU", label)
    if label < 0:
        return ["trainer.gpus=0"]
    return ["trainer.gpus=1", f"+hydra.job.env_set.CUDA_VISIBLE_DEVICES='{label}'"]


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags and their values; and the overrides at the end."""
    known = (*NUMBERS, *LISTS, *OTHERS)
    for name in _options(arguments):
        if name in HYDRA:
            raise UserError(f"{name}: it does not go together with {', '.join(known[:3])} and the like.")
        if name not in known:
            raise unknown("flag", name, (*known, *HYDRA))
    end = len(arguments)
    while end and OVERRIDE.match(arguments[end - 1]):
        end -= 1
    parser = _Parser(allow_abbrev=False, add_help=False)
    for name, (_, kind) in NUMBERS.items():
        parser.add_argument(name, dest=name, type=kind)
    for name, (_, kind) in LISTS.items():
        parser.add_argument(name, dest=name, type=kind, nargs="+")
    parser.add_argument("--activation")
    parser.add_argument("--device-label", type=int)
    parser.add_argument("--path")
    parser.add_argument("--scheduler", action="store_true")
    parser.add_argument("--last-trial", action="store_true")
    return parser.parse_args(arguments[:end]), list(arguments[end:])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def _reproduced(arguments: Sequence[str]) -> list[str]:
    """`--config-path .../reproduce --config-name NAME` as `reproduce=NAME`."""
    if not {"--config-path", "-cp"} & set(_options(arguments)):
        return list(arguments)
    parser = _Parser(allow_abbrev=False, add_help=False)
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    flags, others = parser.parse_known_args(arguments)
    if Path(flags.config_path).name != "reproduce" or flags.config_name is None:
        return list(arguments)
    place = next((i for i, each in enumerate(others) if OVERRIDE.match(each)), len(others))  # Hydra wants them together
    return [*others[:place], f"reproduce={flags.config_name.removesuffix('.yaml')}", *others[place:]]


def _quoted(text: str) -> str:
    """A string as Hydra's overrides quote it."""
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"
