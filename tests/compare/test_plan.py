"""Plans: what they mean, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from algorithm_cases import OWN_NETWORK
from compare_helpers import made_plan

from targetprop.algorithms import ALGORITHMS
from targetprop.app.overrides import check_overrides
from targetprop.compare import plan_file
from targetprop.compare.contest import Contest
from targetprop.compare.plan import Task
from targetprop.compare.rates import Optimiser
from targetprop.learners import LEARNERS
from targetprop.utils.errors import UserError

PLANS = Path(__file__).parents[2] / "plans"
TASK = Task("tiny_vgg", "digits")


def test_a_plan_is_read_and_written(tmp_path: Path) -> None:
    plan = plan_file.load(made_plan(tmp_path))
    assert list(plan.rules) == ["backprop", "dtp", "delta_mirror", "kolen_pollack"]
    assert plan.tasks == [TASK]
    assert plan.fresh_seeds("dtp", plan.rules) == plan.fresh_seeds("backprop", ["dtp"]) == (11, 12, 13)
    assert plan.fresh_seeds("backprop", plan.rules) == plan.fresh_seeds("delta_mirror", plan.rules) == (*range(11, 23),)
    plan_file.save(plan, tmp_path / "made" / "made.yaml")
    assert plan_file.load(tmp_path / "made" / "made.yaml") == plan


def test_names_choose_unless_settings_do(tmp_path: Path) -> None:
    old, new = (
        "rules: [backprop, dtp,",
        "rules: {backprop: , mine.of.MY: [+model.hparams.beta=2.0], other: [model=dtp],",
    )
    made = made_plan(tmp_path, old, new)
    made.write_text(made.read_text().replace("delta_mirror, kolen_pollack]", "delta_mirror: }"))
    plan = plan_file.load(made)
    assert plan.chosen("mine.of.MY", TASK)[:3] == ("model=own", "model.algorithm=mine.of.MY", "+model.hparams.beta=2.0")
    assert plan.chosen("other", TASK)[0] == "model=dtp"
    assert "scheduler=cosine_to_end" in plan.chosen("other", TASK)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("question:", "questions:", r"made.yaml.questions: there is no such setting.*'question'"),
        ("question: Is it so?", "question: [1]", r"question: expected a text"),
        ("question: Is it so?", "question: [", r"made.yaml: cannot be read"),
        ("rules: [backprop, dtp, delta_mirror, kolen_pollack]\n", "", r"rules: expected a value"),
        ("[backprop, dtp, delta_mirror, kolen_pollack]", "[backprop]", r"rules: expected 2 or more names"),
        ("[backprop, dtp, delta_mirror, kolen_pollack]", "[dtp, delta_mirror]", r"reference: unknown value 'backprop'"),
        ("[backprop, dtp,", "[backprop, dtp, dtp,", r"rules: expected every name once"),
        ("[backprop, dtp,", "[backprop, a/b,", r"rules\.a/b: expected a name without"),
        ("    - network.hparams.channels=[8,8]", "    - channels", r"networks.tiny_vgg: expected a list of KEY=VALUE"),
        ("    - trainer.max_epochs=2", "    trainer.max_epochs: 2", r"data.digits: expected a list of KEY=VALUE"),
        ("search:", "serach:", r"serach: there is no such setting.*'search'"),
        ("  rates: [", "  rate: [", r"search.rate: there is no such setting.*'rates'"),
        ("0.02, 0.04", "0.04, 0.02", r"search.rates: expected two or more above 0, rising"),
        ("[0.02, 0.04, 0.08, 0.16]", "[0.02]", r"search.rates: expected two or more"),
        ("[0.02, 0.04, 0.08, 0.16]", "[0, 0.04]", r"search.rates: expected two or more above 0"),
        ("[0.02, 0.04, 0.08, 0.16]", "fast", r"search.rates: expected two or more.*'fast'"),
        ("most_rates: 6", "most_rates: 3", r"search.most_rates: expected a whole number, 4 or more, got 3"),
        ("seeds: [1, 2]", "seeds: [1, 11]", r"seeds: expected fresh seeds, none of the search, got \[11\]"),
        ("seeds: [1, 2]", "seeds: [1, 1]", r"search.seeds: expected a list of 1 or more different seeds"),
        ("seeds: [1, 2]", "seeds: [one]", r"search.seeds: expected a whole number"),
        ("seeds: [11, 12, 13]\n", "seeds: [11]\n", r"seeds: expected a list of 2 or more different seeds"),
        ("seeds: [11, 12, 13]\n", "seeds: 11\n", r"seeds: expected a list of 2 or more different seeds, got 11"),
        ("  rule: delta_mirror", "  rule: delta_miror", r"verdict.rule: unknown value 'delta_miror'.*'delta_mirror'"),
        ("  rule: delta_mirror", "  rule: backprop", r"verdict.rule: expected another one"),
        ("  margin: 0.5", "  margin: 0", r"verdict.margin: expected a number above 0"),
        (", 21, 22]", "]", r"verdict.seeds: expected a list of 12 or more"),
        ("verdict:\n", "verdict: yes\nother:\n", r"other: there is no such setting"),
        ("settings:\n", "level: 0\nsettings:\n", r"level: expected a number above 0 to 1e\+09, got 0"),
        ("settings:\n", "optimizer: {type: sdg}\nsettings:\n", r"optimizer.type: unknown value 'sdg'.*'sgd'"),
        ("settings:\n", "optimizer: {momentum: -1}\nsettings:\n", r"optimizer.momentum: expected a number from 0"),
        ("settings:\n", "optimizer: {lr: 1}\nsettings:\n", r"optimizer.lr: there is no such setting"),
    ],
)
def test_mistakes_in_a_plan_are_one_line_that_names_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        plan_file.load(made_plan(tmp_path, old, new))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[backprop, dtp,", "[backprop, dpt,", r"rules.dpt on digits_tiny_vgg.*model: unknown value 'dpt'.*'dtp'"),
        ("  tiny_vgg:", "  tiny_vvg:", r"network: unknown value 'tiny_vvg'.*'tiny_vgg'"),
        ("  digits:", "  digit:", r"datamodule: unknown value 'digit'.*'digits'"),
        ("max_epochs=2", "max_epoch=2", r"trainer.max_epoch: there is no such setting.*'max_epochs'"),
        ("trainer.gpus=0", "trainer.max_epochs=3", r"trainer.max_epochs: expected one value"),
        ("trainer.gpus=0", "scheduler=none", r"scheduler"),
    ],
)
def test_what_the_command_line_refuses_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    plan = plan_file.load(made_plan(tmp_path, old, new))
    with pytest.raises(UserError, match=message) as error:
        plan_file.check_composes(plan)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_effective_rates_give_the_step_of_the_gradient_itself(kind: str) -> None:
    optimiser, beta, steps = Optimiser(kind, weight_decay=1e-2), 0.7, 30
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(steps, 5, dtype=torch.float64, generator=generator)
    weights = []
    for scale in (1.0, beta):
        numbers = {
            key.rpartition(".")[2]: value
            for key, value in (each.split("=") for each in optimiser.settings(0.08, scale))
        }
        weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
        lr, decay, momentum = (float(numbers[key]) for key in ("lr", "weight_decay", "momentum"))
        made = {
            "sgd": lambda: torch.optim.SGD([weight], lr, momentum, weight_decay=decay),  # noqa: B023
            "adam": lambda: torch.optim.Adam([weight], lr, weight_decay=decay, eps=0),  # noqa: B023
            "adamw": lambda: torch.optim.AdamW([weight], lr, weight_decay=decay, eps=0),  # noqa: B023
        }[kind]()
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(made, steps, float(numbers["eta_min"]))
        for gradient in gradients:
            weight.grad = scale * gradient
            made.step()
            schedule.step()
        weights.append(weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-12)


def test_a_tenth_of_the_steps_replaces_the_limit_of_the_plan(tmp_path: Path) -> None:
    plan = plan_file.load(made_plan(tmp_path, "trainer.gpus=0", "trainer.limit_train_batches=9"))
    contest = Contest(TASK, ("backprop", "dtp"), 1, False, 0.1, {"dtp": 0.7, "backprop": 1.0})
    settings = contest.settings(plan, "dtp", 0.07)
    assert [each for each in settings if "limit_train" in each] == ["trainer.limit_train_batches=1"]
    assert check_overrides(list(settings)).model.hparams.f_optim.lr == pytest.approx(0.1)


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_plans_compose(path: Path) -> None:
    if not path.stem.endswith(".frozen"):
        plan_file.check_composes(plan_file.load(path))


def test_plans_have_every_rule_that_their_network_can_train() -> None:
    names = ("digits", "mlp", "adding")
    on_images, on_vectors, through_time = (set(plan_file.load(PLANS / f"{name}.yaml").rules) for name in names)
    recurrent = {rule for rule, network in OWN_NETWORK.items() if network == "rnn"}
    assert {rule for rule in ALGORITHMS if rule not in OWN_NETWORK} <= on_images
    assert not set(OWN_NETWORK) & on_images
    assert set(LEARNERS) - recurrent <= on_vectors
    assert recurrent <= through_time
