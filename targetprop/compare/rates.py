"""The same effective rate for every rule.

A rule with a step size beta leaves about beta times the gradient g: `update_scale` says how many times. SGD with rate
lr / beta and weight decay x beta makes from it exactly the step that SGD with rate lr and that decay makes from g, with
momentum, too: its gradient, with the decay's part, is beta (g + decay w), so its momentum is beta times the other's,
and the rate takes the beta out again. The rate that a schedule ends with is divided by beta, too.

Adam divides by the gradient's own size, so its rate is effective as it is; a decay within the gradient (`adam`) is
scaled with it, a decoupled one (`adamw`) is not. Adam's eps of 1e-8 is not scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

OPTIMISERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True)
class Optimiser:
    """The forward optimiser of all rules, in effective numbers, those for the gradient itself.

    Attributes:
        momentum: of SGD.
        final_rate: that a cosine schedule ends with; None writes none, for a schedule that has no such number.
    """

    type: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    final_rate: float | None = 1e-5

    def settings(self, rate: float, scale: float) -> tuple[str, ...]:
        """Overrides that give a rule the step of the gradient itself.

        Args:
            rate: effective one.
            scale: what the rule's gradients are times those of backprop.
        """
        divisor = scale if self.type == "sgd" else 1.0
        decay = self.weight_decay if self.type == "adamw" else self.weight_decay * scale
        numbers: dict[str, object] = {
            "type": self.type,
            "lr": rate / divisor,
            "momentum": self.momentum if self.type == "sgd" else 0.0,
            "weight_decay": decay,
            "nesterov": "false",
        }
        made = [f"model.hparams.f_optim.{key}={value}" for key, value in numbers.items()]
        return (*made, *([] if self.final_rate is None else [f"scheduler.eta_min={self.final_rate / divisor}"]))
