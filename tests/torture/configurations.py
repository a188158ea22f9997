"""Settings: every leaf key of the configuration with values that are valid, invalid by its kind, or open.

What is known of a key is its kind. A value that is none of its kind must be refused in one line with the key; one that
is known to be good must run to a result; of the rest either is right, as long as numbers are finite.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from . import oracle
from .case import Bench, NotApplicableError, Outcome
from .child import End
from .project import Project

BASE = (
    "network.hparams.channels=[8,8]", "model.hparams.feedback_training_iterations=2", "trainer.threads=1",
    "trainer.enable_progress_bar=false", "trainer.max_epochs=1", "trainer.limit_train_batches=3",
)  # fmt: skip
GROUPS = ("model", "network", "datamodule", "trainer", "scheduler", "callbacks", "logger")
CHOICES = (
    (), (), (), ("model=lee_dtp",), ("model=backprop",), ("model=amortised_dtp",), ("model=delta_mirror",),
    ("model=kolen_pollack",), ("scheduler=step",), ("scheduler=one_cycle",), ("callbacks=early_stopping",),
    ("trainer=layer_parallel",),
)  # fmt: skip
"""What the keys are of."""
LACK_ITERATIONS = ("model=backprop", "model=amortised_dtp", "model=delta_mirror", "model=kolen_pollack")
DIVERGED = ("diverged", "not finite", "not a number", "NaN")
"""Words of a refusal that names a step instead of a key: what only shows while a run is under way."""
Expectation = Literal["valid", "invalid", "open"]


@dataclass(frozen=True)
class Kind:
    """Values of a kind of key, as they are written on a command line."""

    valid: Sequence[str]
    invalid: Sequence[str]
    open: Sequence[str] = ()


NO_NUMBER = ("abc", "[]", "{a:1}", "nan", "inf", "true", "'1 2'", "[[1]]", "-inf", "1e400")
BOOLEAN = Kind(("true", "false"), ("abc", "2", "-1", "nan", "[]", "{a:1}", "0.5", "null", "yess"))
COUNT = Kind(("1", "2"), (*NO_NUMBER, "-1", "1.5", "0", "-1e30", "null"), ("1000", "3.0"))
NATURAL = Kind(("0", "1", "7"), (*NO_NUMBER, "-1", "1.5", "null"), ("12345678901",))
RATE = Kind(("0.01", "1e-3"), (*NO_NUMBER, "-1", "-1e-9", "null"), ("0", "1", "1e30", "1e-30"))
FRACTION = Kind(("0.5", "0.0"), (*NO_NUMBER, "-0.1", "1.5", "null", "1e30"), ("0.999999", "1e-12"))
SHARE = Kind(("1.0", "2"), (*NO_NUMBER, "-1", "1.5", "-0.5", "1e30"), ("0.5", "1e-9", "0.0", "0"))
NAME = Kind((), ("nonsense", "1", "[]", "{a:1}", "true", "1e30", "' '"), ("null",))
TARGET = Kind((), ("nonsense", "os.system", "targetprop.nowhere", "0", "null", "[]", "{a:1}", "builtins.print"))
FOLDER = Kind((), ("[]", "{a:1}", "[1]"), ("0", "true", "nan", "null", "''", "/proc/nowhere"))
NUMBERS = Kind((), ("0.3.1", "[abc]", "[nan]", "[1,2,3,4,5,6,7]", "{a:1}", "true", "null", "[[1]]", "[-inf]"), ("[1]",))
UNKNOWN = Kind((), ("{a:{b:[1]}}",), ("nonsense", "-1", "null", "[]", "nan"))
SECTION = Kind((), ("1e30", "0", "true", "[1]", "nonsense", "-1", "nan"), ("null",))
"""A number, name or list in place of a whole section."""

KINDS: tuple[tuple[str, Kind], ...] = (
    (r"(.*\.)?_target_", TARGET),
    (r".*\._partial_", Kind((), ("abc", "2", "null", "[]", "{a:1}"), ("false",))),
    (r"train|test", Kind((), BOOLEAN.invalid)),
    (r".*\.(drop_last|reshuffle|enable_\w+|cuda_graph|nesterov|divide_by_beta|output_follows_loss|"
     r"init_symmetric_weights|save_on_train_epoch_end|enable_version_counter|cycle_momentum)",
     Kind(("false",), BOOLEAN.invalid, ("true",))),
    (r"trainer\.fast_dev_run", Kind((), ("abc", "-1", "1e30", "nan", "[]", "{a:1}"), ("true", "2"))),
    (r"seed|datamodule\.seed", Kind(("0", "7"), (*NO_NUMBER, "-1", "1.5", "null", "1e30"), ("4294967295",))),
    (r"trainer\.max_epochs", Kind(("1", "2"), (*NO_NUMBER, "1.5", "-2", "null", "-1"), ("0",))),
    (r"trainer\.(check_val_every_n_epoch|processes|data_parallel|log_every_n_steps)",
     Kind(("1",), (*NO_NUMBER, "-1", "1.5"), ("0", "null", "1000"))),
    (r"trainer\.worker_timeout", Kind(("30",), (*NO_NUMBER, "-1", "0"), ("null", "1e9"))),
    (r"trainer\.threads", Kind(("1", "2"), (*NO_NUMBER, "-1", "1.5", "0", "1000000"), ("5000",))),
    (r"trainer\.gpus", Kind(("0", "null"), (*NO_NUMBER, "-1", "1.5"), ("1",))),
    (r"trainer\.limit_\w+", SHARE),
    (r"trainer\.num_sanity_val_steps", Kind(("0", "1"), (*NO_NUMBER, "1.5", "-2"), ("-1",))),
    (r"trainer\.precision", Kind(("32-true", "64-true"), ("abc", "7", "[]", "{a:1}", "true"), ("null",))),
    (r"trainer\.matmul_precision", Kind(("highest", "high"), ("abc", "7", "[]", "{a:1}", "null", "true"))),
    (r"datamodule\.batch_size", Kind(("32", "128"), (*NO_NUMBER, "-1", "0", "1.5", "null"), ("1", "100000000"))),
    (r"datamodule\.val_fraction", Kind(("0.2", "0"), (*NO_NUMBER, "-0.1", "1.5", "null", "1"), ("0.999",))),
    (r"datamodule\.num_workers", Kind(("0", "4"), (), ("-1", "abc"))),
    (r"datamodule\.(mean|std)", NUMBERS),
    (r"datamodule\.augmentation", Kind(("null",), ("-1", "abc", "[]", "1e30", "true"), ("{a:1}",))),
    (r".*\.(lr|max_lr)", RATE),
    (r".*\.momentum", Kind(("0.5", "0"), (*NO_NUMBER, "-1", "1.5", "null"), ("1", "0.999"))),
    (r".*\.weight_decay", Kind(("0", "1e-4"), (*NO_NUMBER, "-1", "null"), ("1", "1e30"))),
    (r".*\.beta", Kind(("0.5", "0.7"), (*NO_NUMBER, "0", "null"), ("-1", "1e30", "1e-30"))),
    (r".*\.noise", Kind(("0.1", "[0.2,0.1]"), ("abc", "{a:1}", "nan", "-1", "[]", "null", "[1,2,3,4]"), ("1e30", "0"))),
    (r".*\.(feedback_training_iterations|noise_samples)", Kind(("1", "3"), (*NO_NUMBER, "-1", "1.5", "null"), ("0",))),
    (r".*\.channels", Kind(("[4,6]",), ("[]", "abc", "[0,8]", "[-1]", "[1.5]", "null", "{a:1}", "true"), ("[8]",))),
    (r".*\.activation", Kind(("elu", "tanh"), ("nonsense", "7", "[]", "{a:1}", "null"), ("relu",))),
    (r".*_optim\.type|.*\.(gradient|style|anneal_strategy|monitor|mode)|model\.(algorithm|recipe|loss)",
     NAME),
    (r".*\.filename", Kind(("other",), ("[]", "{a:1}", "a/b", "' '", "1", "true"), ("null",))),
    (r"scheduler\.(T_max|step_size)", Kind(("3",), (*NO_NUMBER, "0", "-1", "1.5", "null"))),
    (r"scheduler\.(eta_min|gamma)", Kind(("0.0", "1e-5"), ("abc", "{a:1}", "nan", "null", "[]"), ("-1", "1e9"))),
    (r"scheduler\.(pct_start|div_factor|final_div_factor)", Kind((), ("abc", "{a:1}", "nan", "[]", "-1"), ("1e9",))),
    (r"callbacks\.\w+\.(every_n_steps|refresh_rate)", Kind(("5",), (*NO_NUMBER, "-1", "1.5"), ("0", "null"))),
    (r"callbacks\.\w+\.save_top_k", Kind(("1",), ("abc", "nan", "[]", "{a:1}", "1.5"), ("0", "-1", "3", "null"))),
    (r"callbacks\.early_stopping\.patience", Kind(("3",), (*NO_NUMBER, "-1", "1.5", "null"), ("0",))),
    (r"callbacks\.early_stopping\.min_delta", Kind(("0.0", "0.1"), ("abc", "nan", "[]", "{a:1}", "null"), ("-1",))),
    (r"callbacks\.progress_lines\.seconds", Kind(("1",), ("abc", "nan", "[]", "{a:1}", "null", "-1"), ("0",))),
    (r".*\.(dirpath|path|save_dir|default_root_dir)|output_dir|.*data_dir", FOLDER),
    (r"ckpt_path", Kind(("null",), ("true", "0", "nonsense", "[]", "{a:1}", "/", "''", "/dev/null"))),
    (r"views", Kind(("null",), ("nonsense", "0", "[]", "{a:1}", "true"), ("mirror",))),
)  # fmt: skip
"""The first pattern that fits a whole key says of what kind it is."""
UNMINDFUL = ("trainer.enable_", "trainer.num_sanity", "trainer.matmul", "trainer.log_every", "callbacks.", "logger.")
"""Keys whose valid values leave the learning alone: the run must be better than chance, as the usual one is."""


def kind_of(key: str) -> Kind:
    """Of what kind a key is."""
    return next((kind for pattern, kind in KINDS if re.fullmatch(pattern, key)), UNKNOWN)


def leaves(node: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """The keys that hold no section; a list is a leaf."""
    for key, value in node.items():
        full = f"{name}.{key}" if name else str(key)
        if isinstance(value, Mapping):
            yield from leaves(value, full)
        else:
            yield full


def sections(node: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """The keys that hold a section."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            full = f"{name}.{key}" if name else str(key)
            yield full
            yield from sections(value, full)


@cache
def composed(project: Project, choices: tuple[str, ...]) -> dict[str, Any]:
    """The configuration of these choices, read once."""
    return project.composed(choices)


@dataclass(frozen=True)
class Setting:
    """One override, and what is known of it.

    Attributes:
        key: that a refusal has to name.
    """

    override: str
    key: str
    expected: Expectation


def any_setting(config: Mapping[str, Any], chance: random.Random) -> Setting:
    """One of a leaf, a section or a misspelt name."""
    way = chance.choice(("leaf",) * 7 + ("section", "misspelt", "added", "choice"))
    if way == "leaf":
        return value_of(chance.choice(list(leaves(config))), chance)
    if way == "section":
        key = chance.choice(list(sections(config)))
        value = chance.choice(SECTION.invalid)
        return Setting(f"{key}={value}", key, "invalid")
    if way == "misspelt":
        key = chance.choice(list(leaves(config)))
        name = misspelt(key, chance)
        return Setting(f"{name}=1", name, "invalid")
    if way == "added":
        section = chance.choice([each for each in sections(config) if not each.startswith(("trainer", "scheduler"))])
        return Setting(f"+{section}.nonsense=1", f"{section}.nonsense", "open" if "." in section else "invalid")
    group = chance.choice(GROUPS)
    return Setting(
        f"{group}={misspelt(chance.choice(('dtp', 'default', 'cosine', 'digits')), chance)}", group, "invalid"
    )


WRONG = "qz"


def misspelt(name: str, chance: random.Random) -> str:
    """A name with letters near its end that no name has."""
    place = chance.randrange(max(0, len(name) - 3), len(name))
    return name[:place] + WRONG + name[place:]


def value_of(key: str, chance: random.Random, only: Expectation | None = None) -> Setting:
    """A key with one of the values of its kind."""
    kind = kind_of(key)
    wanted: Expectation = only or chance.choices(("invalid", "valid", "open"), (6, 2, 2))[0]
    order: tuple[Expectation, ...] = (wanted, "open", "invalid", "valid")
    expected = next(each for each in order if getattr(kind, each))
    return Setting(f"{key}={chance.choice(getattr(kind, expected))}", key, expected)


class Configurations:
    """Settings that are valid, invalid or open, alone and together."""

    name = "configurations"
    full = 1000
    short = 16

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """One setting; or, in every tenth case, some that are each valid together."""
        choices = chance.choice(CHOICES)
        config = composed(bench.project, tuple(bench.project.translated(choices)))
        if number % 10 == 9:
            return self._together(bench, choices, config, chance)
        setting = any_setting(config, chance)
        base = [*base_of(choices), bench.place()]
        if setting.expected != "invalid":  # or it would start processes, which is another class's to try
            if setting.key in OF_PROCESSES:
                raise NotApplicableError(f"{setting.override} needs processes")
            base = [each for each in base if each != "trainer=layer_parallel"]
        end = bench.run([*without(base, setting.key), setting.override])
        return Outcome(f"{' '.join([*choices, setting.override])} ({setting.expected})", judged(end, bench, setting))

    @staticmethod
    def _together(bench: Bench, choices: Sequence[str], config: Mapping[str, Any], chance: random.Random) -> Outcome:
        """Settings of which each is valid may still not go together: then one of them is named."""
        able = [key for key in leaves(config) if kind_of(key).valid]
        chosen = [value_of(key, chance, "valid") for key in chance.sample(able, 3)]
        base = [each for each in base_of(choices) if each != "trainer=layer_parallel"]
        for setting in chosen:
            base = without(base, setting.key)
        settings = [each.override for each in chosen if not each.key.startswith("trainer.processes")]
        end = bench.run([*base, bench.place(), *settings])
        keys = [each.key for each in chosen]
        said = oracle.finite(end, bench.rundir) if end.code == 0 else oracle.refused(end, [*keys, *GROUPS, *DIVERGED])
        return Outcome(" ".join([*choices, *settings]), said)


def base_of(choices: Sequence[str]) -> list[str]:
    """A run of a second with these choices."""
    lacks = any(each in LACK_ITERATIONS for each in choices)
    return [*choices, *(each for each in BASE if not (lacks and "feedback_training" in each))]


def without(overrides: Sequence[str], key: str) -> list[str]:
    """The overrides but those of the key, and of what is in it."""
    return [each for each in overrides if each.partition("=")[0] != key and not each.startswith(f"{key}.")]


def judged(end: End, bench: Bench, setting: Setting) -> list[str]:
    """What the oracle says of a run with a setting."""
    names = [setting.key]
    if setting.key.endswith(("._target_", "._partial_")):
        names.append(setting.key.rpartition(".")[0])
    if WRONG in setting.key:  # in a part before the last one
        before, _, behind = setting.key.partition(WRONG)
        names.append(f"{before}{WRONG}{behind.partition('.')[0]}")
    if setting.key.endswith((".channels", ".output_follows_loss")):  # by which lists for each block change in length
        names += [f"model.hparams.{each}" for each in ("noise", "feedback_training_iterations", "b_optim.lr")]
    if setting.key == "datamodule.val_fraction":  # of which little is left to train on
        names.append("datamodule.batch_size")
    if setting.expected == "invalid":
        return oracle.refused(end, names)
    if setting.expected == "open" and end.code != 0:
        return oracle.refused(end, [*names, *DIVERGED])
    if end.code == 0 and not (bench.rundir / "results.json").is_file() and setting.key in ("train", "test"):
        return oracle.ended_well(end)
    return oracle.finite(end, bench.rundir, CHANCE if setting.key.startswith(UNMINDFUL) else 0.0)


OF_PROCESSES = ("trainer.processes", "trainer.data_parallel", "trainer.worker_timeout")
CHANCE = 0.02
"""Three batches do not learn much; what is below this is not even a guess."""
