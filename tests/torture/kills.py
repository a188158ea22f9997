"""Runs that are ended by signals at any moment, and go on from what they left."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from typing import NamedTuple

import torch

from . import oracle, records
from .case import SMALL, Bench, NotApplicableError, Outcome
from .child import End
from .triggers import Trigger

MODES: dict[str, tuple[str, ...]] = {
    "dtp": (),
    "every step": ("callbacks.last.every_n_steps=1",),
    "every 3 steps": ("callbacks.last.every_n_steps=3",),
    "every 3 steps, reshuffle=false": ("callbacks.last.every_n_steps=3", "datamodule.reshuffle=false"),
    "backprop": ("model=backprop", "callbacks.last.every_n_steps=2"),
    "lee_dtp": ("model=lee_dtp",),
    "vanilla_dtp": ("model=vanilla_dtp", "callbacks.last.every_n_steps=3"),
    "parallel_dtp": ("model=parallel_dtp",),
    "amortised_dtp": ("model=amortised_dtp", "callbacks.last.every_n_steps=3"),
    "delta_mirror": ("model=delta_mirror", "callbacks.last.every_n_steps=3"),
    "weight_mirror": ("model=weight_mirror",),
    "kolen_pollack": ("model=kolen_pollack", "callbacks.last.every_n_steps=2"),
    "fixed_dtp": ("model=fixed_dtp",),
    "float64": ("trainer.precision=64-true", "callbacks.last.every_n_steps=3"),
    "adam": (
        "model.hparams.f_optim.type=adam",
        "model.hparams.f_optim.momentum=0",
        "model.hparams.f_optim.lr=0.001",
        "callbacks.last.every_n_steps=3",
    ),
    "one_cycle": ("scheduler=one_cycle", "callbacks.last.every_n_steps=3"),
    "step": ("scheduler=step", "scheduler.step_size=1"),
    "no validation": ("datamodule.val_fraction=0", "callbacks.last.every_n_steps=3"),
    "early stopping": ("callbacks=early_stopping", "callbacks.early_stopping.patience=1"),
    "small batches": ("datamodule.batch_size=40", "trainer.limit_train_batches=9", "trainer.log_every_n_steps=1"),
    "no logger": ("logger=none", "callbacks.last.every_n_steps=2"),
    "views": ("views=mirror", "callbacks.last.every_n_steps=3"),
    "drop_last=false": ("datamodule.drop_last=false", "trainer.limit_train_batches=1.0", "trainer.max_epochs=2"),
}
"""What is trained, and how often it is saved."""
LEARNS_OTHERWISE = ("backprop", "amortised_dtp", "delta_mirror", "weight_mirror", "kolen_pollack", "fixed_dtp")
"""Modes that have no iterations of feedback."""
SLURM = {"SLURM_JOB_ID": "5", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
         "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}  # fmt: skip
SIGNALS = (
    *(signal.SIGKILL,) * 6, *(signal.SIGTERM,) * 4, *(signal.SIGINT,) * 3, *(signal.SIGHUP,) * 2,
    *(signal.SIGUSR1,) * 3, signal.SIGQUIT, signal.SIGABRT, signal.SIGUSR2, signal.SIGALRM,
)  # fmt: skip
LENGTH = 3.0
"""Seconds within which a run is killed by the clock."""
STEPS = 12


def overrides_of(mode: str) -> list[str]:
    """The overrides of a run in this mode."""
    small = [each for each in SMALL if mode not in LEARNS_OTHERWISE or "feedback_training" not in each]
    keys = {each.partition("=")[0] for each in MODES[mode]}
    return [*(each for each in small if each.partition("=")[0] not in keys), *MODES[mode]]


class Kills:
    """All signals, over all modes, at all moments."""

    name = "kills"
    full = 240
    short = 8

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """A run that is ended once or twice, then goes on in its directory, and must end as the uninterrupted one."""
        mode = list(MODES)[number % len(MODES)]
        overrides = overrides_of(mode)
        expected = bench.reference(overrides)
        special = SPECIAL.get(number % 12)
        if special is not None:
            return special(bench, mode, overrides, chance)
        did, said = [mode], []
        command = [*overrides, bench.place()]
        for life in range(chance.choice((1, 1, 1, 2))):
            killed = kill(bench, command, chance)
            end = killed.end
            did.append(killed.what)
            if end.code == 0:  # it was too late
                break
            said += oracle.stopped(end, killed.number, had_begun=killed.step is not None)
            if life == 0 and killed.step is not None and killed.number in oracle.GRACEFUL:
                said += saved_at(bench, killed.step)
            if not (bench.rundir / "checkpoints" / "last.ckpt").is_file():
                return Outcome(", ".join([*did, "no checkpoint yet"]), said)
            command = goes_on(end, [*overrides, bench.place()])
        else:
            end = bench.run(command)
        return Outcome(", ".join(did), [*said, *oracle.equal(end, bench.rundir, expected)])


class Kill(NamedTuple):
    """A run that was ended.

    Attributes:
        end: how it ended.
        what: was done.
        number: of the signal.
        step: before which the signal came, from 1 on; None if it is not known to have come within training.
    """

    end: End
    what: str
    number: int
    step: int | None = None


def kill(bench: Bench, command: Sequence[str], chance: random.Random) -> Kill:
    """End a run somehow."""
    number = chance.choice(SIGNALS)
    event = chance.choice(("step", "step", "replace", "replaced", "fsync", "clock"))
    if event == "clock":
        running = bench.server.start(bench.launch(command))
        after = chance.uniform(0, LENGTH)
        end = running.ends_within(after)
        if end is not None:
            return Kill(end, f"{number.name} after {after:.2f} s, too late", number)
        running.signal(number)
        return Kill(running.end(), f"{number.name} after {after:.2f} s", number)
    count = chance.randint(1, STEPS - 1)
    end = bench.run(command, triggers=[Trigger(event, count, (number,))])
    within = event == "step" and end.code != 0
    return Kill(end, f"{number.name} at {event} {count}", number, count if within else None)


def saved_at(bench: Bench, step: int) -> list[str]:
    """Whether a run that was stopped before this step, or within it, has saved all that it had done."""
    last = bench.rundir / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return ["no checkpoint was written"]
    saved = torch.load(last, map_location="cpu", weights_only=True)["global_step"]
    return [] if saved in (step - 1, step) else [f"stopped at step {step}, and last.ckpt is of step {saved}"]


def goes_on(end: End, overrides: Sequence[str]) -> list[str]:
    """The arguments by which a user goes on: those that the run printed, or else the same with its last checkpoint."""
    return oracle.command_that_goes_on(end) or [*overrides, "ckpt_path=last"]


def ignored(bench: Bench, mode: str, overrides: Sequence[str], chance: random.Random) -> Outcome:
    """What is ignored from the start, as under nohup, stays ignored."""
    number = chance.choice((signal.SIGHUP, signal.SIGINT, signal.SIGUSR1))
    step = chance.randint(1, 7)
    trigger = Trigger("step", step, (number,))
    end = bench.run([*overrides, bench.place()], ignored=[number], triggers=[trigger])
    said = oracle.equal(end, bench.rundir, bench.reference(overrides))
    return Outcome(f"{mode}, {number.name} at step {step}, ignored at start", said)


def twice(bench: Bench, mode: str, overrides: Sequence[str], chance: random.Random) -> Outcome:
    """The second signal ends a run at once; what it had saved before is good."""
    first, second = chance.choice(oracle.GRACEFUL), chance.choice(oracle.GRACEFUL)
    step = chance.randint(1, 7)
    end = bench.run([*overrides, bench.place()], triggers=[Trigger("step", step, (first, second))])
    said = oracle.stopped(end, second, had_begun=False)
    if end.code in (128 + first, -first):
        said = oracle.stopped(end, first, had_begun=False)
    if (bench.rundir / "checkpoints" / "last.ckpt").is_file():
        end = bench.run([*overrides, bench.place(), "ckpt_path=last"])
        said += oracle.equal(end, bench.rundir, bench.reference(overrides))
    return Outcome(f"{mode}, {first.name} and {second.name} at step {step}", said)


def under_slurm(bench: Bench, mode: str, overrides: Sequence[str], chance: random.Random) -> Outcome:
    """A preempted job of SLURM goes on by its command, and leaves no file for other jobs in the current directory."""
    number = chance.choice((signal.SIGUSR1, signal.SIGTERM))
    step = chance.randint(1, 7)
    command = [*overrides, bench.place()]
    end = bench.run(command, environment=SLURM, triggers=[Trigger("step", step, (number,))])
    said = oracle.stopped(end, number, had_begun=True)
    said += [f"{path.name} in the current directory" for path in bench.folder.glob("*.ckpt")]
    if end.code != 0:
        end = bench.run(goes_on(end, command), environment=SLURM)
    said += oracle.equal(end, bench.rundir, bench.reference(overrides))
    return Outcome(f"{mode}, {number.name} at step {step} under SLURM", said)


def evaluation(bench: Bench, mode: str, overrides: Sequence[str], chance: random.Random) -> Outcome:
    """An evaluation that is killed changes nothing of the run that it evaluates; it needs no settings."""
    end = bench.run([*overrides, bench.place()])
    before = records.fingerprint(bench.rundir)
    number = chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    running = bench.server.start(bench.launch(["train=false", f"ckpt_path={bench.rundir}", "trainer.threads=1"]))
    after = chance.uniform(0, 2)
    if running.ends_within(after) is None:
        running.signal(number)
        end = running.end()
    said = [f"{oracle.HUNG} after {number.name}"] if end.code is None else []
    again = bench.run(["train=false", f"ckpt_path={bench.rundir}", "trainer.threads=1"])
    said += oracle.ended_well(again) + oracle.kept(before, bench.rundir)
    said += oracle.same(records.read(bench.rundir), bench.reference(overrides))
    return Outcome(f"{mode}, {number.name} after {after:.2f} s of an evaluation of the run", said)


def elsewhere(bench: Bench, mode: str, overrides: Sequence[str], chance: random.Random) -> Outcome:
    """A run goes on in another directory, and has the weights of the uninterrupted one."""
    event, count = "step", chance.randint(5, 11)
    end = bench.run([*overrides, bench.place()], triggers=[Trigger(event, count, (signal.SIGKILL,))])
    last = bench.rundir / "checkpoints" / "last.ckpt"
    did = f"{mode}, SIGKILL at {event} {count}, goes on elsewhere"
    if end.code == 0 or not last.is_file():
        raise NotApplicableError(f"{did}: there is no checkpoint to go on from")
    other = bench.folder / "other"
    end = bench.run([*overrides, f"hydra.run.dir={other}", f"ckpt_path={last}"])
    said = oracle.ended_well(end)
    if not said:
        expected = bench.reference(overrides)
        found = records.checkpoint(other / "checkpoints" / "last.ckpt", other)
        parts = ("/state_dict", "/optimizer_states", "/lr_schedulers")
        first, second = (
            {name: leaf for name, leaf in each.items() if name.startswith(parts)}
            for each in (found, expected.checkpoints["last"])
        )
        said = oracle.differences("last.ckpt", first, second)
    return Outcome(did, said)


SPECIAL = {1: ignored, 4: twice, 7: under_slurm, 9: evaluation, 11: elsewhere}
"""By the number of a case modulo 12; 23 modes, so that each meets each."""
