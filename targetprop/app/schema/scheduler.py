"""Settings of learning-rate schedules."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import NULL, TRUTH, WORD, choice, list_of, number, whole

RATE = number(least=0)
LAST = Key(whole(-1, -1), "where the schedule begins: a run that goes on takes it from its checkpoint")
INTERVAL = Key(
    choice("step", "epoch") | NULL,
    "what any schedule counts, and so its lengths; null is steps where it is made for them",
)
FACTOR = Key(number(above=0), "what the rate is multiplied by")

RISE = Key(number(above=0, most=1), "the first rate, as a share of `model.hparams.f_optim.lr`")
TARGETS: dict[str, Keys] = {
    "torch.optim.lr_scheduler.CosineAnnealingLR": {
        "T_max": Key(whole(1) | NULL, "epochs, or steps, until the rate is at its lowest; null is those of the run"),
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
    "torch.optim.lr_scheduler.LinearLR": {
        "start_factor": RISE,
        "end_factor": Key(number(least=0, most=1), "the last rate, as a share of it"),
        "total_iters": Key(whole(1) | NULL, "epochs, or steps, from one to the other; null is those of the run"),
        "last_epoch": LAST,
    },
    "torch.optim.lr_scheduler.PolynomialLR": {
        "total_iters": Key(whole(1) | NULL, "epochs, or steps, until the rate is 0; null is those of the run"),
        "power": Key(number(above=0), "of the polynomial; 1 is a straight line"),
        "last_epoch": LAST,
    },
    "targetprop.app.schedules.WarmupCosine": {
        "warmup_epochs": Key(number(least=0), "epochs in which the rate rises; parts of one, too"),
        "epochs": Key(whole(1), "of the run"),
        "steps_per_epoch": Key(whole(1) | NULL, "steps of an epoch; null is those of the run"),
        "start_factor": RISE,
        "eta_min": Key(RATE, "rate at the end, not above `model.hparams.f_optim.lr`"),
        "last_epoch": LAST,
    },
    "targetprop.app.schedules.Plateau": {
        "monitor": Key(WORD, "the metric that is waited for, such as `val/accuracy` or `train/loss`"),
        "mode": Key(choice("min", "max"), "whether less or more of the metric is better"),
        "factor": Key(number(above=0, below=1), "what the rate is multiplied by"),
        "patience": Key(whole(0), "epochs without improvement after which it falls"),
        "threshold": Key(number(least=0), "what is no improvement yet"),
        "threshold_mode": Key(choice("rel", "abs"), "whether that is a share of the best value, or a difference"),
        "cooldown": Key(whole(0), "epochs after a fall in which nothing is counted"),
        "min_lr": Key(
            RATE | list_of(RATE, "numbers, 0 or more"), "below which it does not fall; or one for each block"
        ),
        "eps": Key(number(least=0), "the smallest fall that is made"),
    },
}
