"""Settings of learning-rate schedules."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import NULL, TRUTH, choice, list_of, number, whole

RATE = number(least=0)
LAST = Key(whole(-1, -1), "where the schedule begins: a run that goes on takes it from its checkpoint")
FACTOR = Key(number(above=0), "what the rate is multiplied by")

TARGETS: dict[str, Keys] = {
    "torch.optim.lr_scheduler.CosineAnnealingLR": {
        "T_max": Key(whole(1), "epochs until the rate is at its lowest"),
        "eta_min": Key(RATE, "rate at its lowest, not above `model.hparams.f_optim.lr`"),
        "last_epoch": LAST,
    },
    "torch.optim.lr_scheduler.StepLR": {
        "step_size": Key(whole(1), "epochs from one fall of the rate to the next"),
        "gamma": FACTOR,
        "last_epoch": LAST,
    },
    "torch.optim.lr_scheduler.MultiStepLR": {
        "milestones": Key(list_of(whole(0), "whole numbers, 0 or more"), "epochs at which the rate falls"),
        "gamma": FACTOR,
        "last_epoch": LAST,
    },
    "torch.optim.lr_scheduler.ExponentialLR": {"gamma": FACTOR, "last_epoch": LAST},
    "torch.optim.lr_scheduler.OneCycleLR": {
        "max_lr": Key(number(above=0), "rate at its highest"),
        "total_steps": Key(whole(1) | NULL, "of the schedule; null is `epochs` times `steps_per_epoch`"),
        "epochs": Key(whole(1) | NULL, "of the schedule"),
        "steps_per_epoch": Key(whole(1) | NULL, "steps of an epoch; null is those of the run"),
        "pct_start": Key(number(least=0, most=1), "share of the run in which the rate rises"),
        "anneal_strategy": Key(choice("cos", "linear"), "course of the rate between its ends"),
        "cycle_momentum": Key(TRUTH, "whether momentum falls while the rate rises"),
        "base_momentum": Key(number(least=0, below=1), "momentum at its lowest"),
        "max_momentum": Key(number(least=0, below=1), "momentum at its highest"),
        "div_factor": Key(number(above=0), "the rate starts at `max_lr` over this"),
        "final_div_factor": Key(number(above=0), "the rate ends at its start over this"),
        "three_phase": Key(TRUTH, "whether it falls in two phases"),
        "last_epoch": LAST,
    },
}
