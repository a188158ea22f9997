"""Small runs that once went wrong: clusters, resuming, schedules by steps, single images, names that need quoting."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, LRScheduler, OneCycleLR

from targetprop.app.callbacks.history import History
from targetprop.app.overrides import check_overrides
from targetprop.app.quoting import quoted, refuse_unreadable
from targetprop.app.run import train
from targetprop.app.signals import Signals
from targetprop.app.single import refuse_single_images
from targetprop.data import BatchLoader, Images
from targetprop.utils.errors import UserError
from targetprop.version import __version__

Compose = Callable[..., DictConfig]
QUICK = ("model=delta_mirror", "test=false", "callbacks.alignment=null", "callbacks.best=null", "scheduler=none")
EVERY_STEP = (
    "+callbacks.steps={_target_:lightning.pytorch.callbacks.ModelCheckpoint,every_n_train_steps:1,save_top_k:-1,"
    "filename:'{step}',auto_insert_metric_name:false,dirpath:%s}"
)


def last_of(config: DictConfig) -> Path:
    return Path(config.output_dir) / "checkpoints/last.ckpt"


def trained(config: DictConfig) -> dict[str, Any]:
    """The last checkpoint of a run."""
    train(config)
    saved: dict[str, Any] = torch.load(last_of(config), weights_only=True)
    return saved


def weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in checkpoint["state_dict"].items() if isinstance(value, Tensor)}


def assert_same_weights(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


# Clusters


JOB = {
    "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "sweep", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
}  # fmt: skip
OTHER_JOBS = [JOB, {**JOB, "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}, {"JSM_NAMESPACE_RANK": "2"}]


@pytest.mark.parametrize("job", OTHER_JOBS, ids=["job", "task of several", "another batch system"])
def test_a_batch_system_changes_nothing_in_a_run(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    preempted = compose(*QUICK, "seed=1", output="preempted")
    train(preempted)
    wanted = trained(compose(*QUICK, output="alone"))
    for place in (tmp_path, tmp_path / "other"):  # as Lightning leaves it behind
        place.mkdir(exist_ok=True)
        (place / "hpc_ckpt_1.ckpt").write_bytes(last_of(preempted).read_bytes())
    handlers: list[Any] = []
    start = History.on_train_epoch_start

    def look(self: History, trainer: L.Trainer, module: L.LightningModule) -> None:
        handlers.append(signal.getsignal(signal.SIGUSR1))
        start(self, trainer, module)

    monkeypatch.setattr(History, "on_train_epoch_start", look)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert_same_weights(trained(compose(*QUICK, output="other")), wanted)
    assert [each.__self__.__class__ for each in handlers] == [Signals], "no handler of Lightning's"
    assert (tmp_path / "other/csv/metrics.csv").is_file(), "the run's only process writes"
    assert not list(tmp_path.glob("lightning*"))


def test_a_batch_system_changes_nothing_in_a_layer_parallel_run(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    preempted = compose(*QUICK, "seed=1", output="preempted")
    train(preempted)
    wanted = trained(compose(*QUICK, output="alone"))
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(last_of(preempted).read_bytes())
    for name, value in OTHER_JOBS[1].items():
        monkeypatch.setenv(name, value)
    several = compose(*QUICK, "trainer=layer_parallel", "trainer.processes=1", "trainer.threads=1", output="other")
    assert_same_weights(trained(several), wanted)


# Going on with other settings


@pytest.fixture(scope="module")
def first(compose_once: Compose) -> Path:
    """The last checkpoint of a run."""
    config = compose_once(*QUICK)
    train(config)
    return last_of(config)


def test_a_checkpoint_says_what_run_it_is_of(first: Path) -> None:
    record = torch.load(first, weights_only=True)["targetprop"]
    assert record["version"] == __version__
    assert record["config"]["model"]["hparams"]["f_optim"]["momentum"] == 0.9
    assert record["config"]["output_dir"] == str(first.parents[1])


ANOTHER_RUN = "with another one it would be another run: start one without ckpt_path."


@pytest.mark.parametrize(
    ("override", "then", "now"),
    [
        ("network.hparams.activation=relu", "elu", "relu"),
        ("network.hparams.channels=[4,8]", "[4, 6]", "[4, 8]"),
        ("seed=7", "123", "7"),
        ("datamodule.val_fraction=0.3", "0.1", "0.3"),
        ("datamodule.mean=[0.2]", "[0.305]", "[0.2]"),
        ("trainer.precision=64-true", "32-true", "64-true"),
        ("model=weight_mirror", "delta_mirror", "weight_mirror"),
        ("model.hparams.f_optim.type=adam model.hparams.f_optim.momentum=0", "sgd", "adam"),
    ],
)
def test_what_makes_another_run_is_refused(compose: Compose, first: Path, override: str, then: str, now: str) -> None:
    config = compose(
        *QUICK[override.startswith("model=") :], "trainer.max_epochs=2", *override.split(), f"ckpt_path='{first}'"
    )
    with pytest.raises(UserError) as caught:
        train(config)
    key = override.partition("=")[0].replace("model", "model.algorithm", override.startswith("model="))
    assert str(caught.value) == f"{key}: the run was made with {then}, now it is {now}; {ANOTHER_RUN}"


@pytest.mark.parametrize(
    "override",
    ["model.hparams.f_optim.lr=0.5", "model.hparams.f_optim.weight_decay=0.25", "model.hparams.f_optim.momentum=0.5",
     "model.hparams.beta=0.5", "+trainer.gradient_clip_val=0.01", "datamodule.batch_size=32",
     "trainer.limit_train_batches=1", "+trainer.accumulate_grad_batches=3"],
)  # fmt: skip
def test_a_number_takes_effect_from_where_a_run_goes_on(
    compose: Compose, first: Path, caplog: pytest.LogCaptureFixture, override: str
) -> None:
    """The epoch is what it would be had all of the run had that number, but for the weights that it begins with."""
    caplog.set_level(logging.INFO)
    settings = (*QUICK, "trainer.max_epochs=2")
    changed = trained(compose(*settings, override, f"ckpt_path='{first}'", output="changed"))
    key, _, value = override.lstrip("+").partition("=")
    assert f"{key} " in caplog.text.partition("From here on: ")[2].splitlines()[0]
    unchanged = trained(compose(*settings, f"ckpt_path='{first}'", output="unchanged"))
    with pytest.raises(AssertionError):
        assert_same_weights(changed, unchanged)
    numbers = changed["optimizer_states"][0]["param_groups"][0]
    if key.startswith("model.hparams.f_optim."):
        assert numbers[key.rpartition(".")[2]] == float(value)


def test_rates_of_the_feedback_take_effect_too(compose: Compose) -> None:
    settings = ("model=dtp", *QUICK[1:])
    config = compose(*settings, output="slow")
    train(config)
    resumed = ("trainer.max_epochs=2", "model.hparams.b_optim.lr=[1e-5,2e-5]", f"ckpt_path='{last_of(config)}'")
    saved = trained(compose(*settings, *resumed, output="other"))
    blocks = saved["state_dict"]["learner._extra_state"]["feedback"]["blocks"]
    assert [blocks[block]["param_groups"][0]["lr"] for block in (1, 2)] == [1e-5, 2e-5]


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (["scheduler=none"], ["scheduler=cosine"]),
        (["scheduler=cosine"], ["scheduler=none"]),
        (["scheduler=cosine_to_end"], ["scheduler=cosine_to_end", "trainer.max_epochs=4"]),
        (["scheduler=cosine"], ["scheduler=step", "scheduler.step_size=1"]),
        (["scheduler=cosine"], ["scheduler=one_cycle"]),
        (["scheduler=one_cycle"], ["scheduler=cosine"]),
    ],
)
def test_a_schedule_takes_effect_as_if_it_had_been_that_of_the_whole_run(
    compose: Compose, then: list[str], now: list[str]
) -> None:
    quick = [each for each in QUICK if not each.startswith("scheduler")]
    config = compose(*quick, "trainer.max_epochs=2", *then, output="first")
    train(config)
    went_on = ("trainer.max_epochs=3", *now)
    resumed = trained(compose(*quick, *went_on, f"ckpt_path='{last_of(config)}'", output="resumed"))
    whole = trained(compose(*quick, *went_on, output="whole"))
    assert resumed["optimizer_states"][0]["param_groups"] == whole["optimizer_states"][0]["param_groups"]
    for one, other in zip(resumed["lr_schedulers"], whole["lr_schedulers"], strict=True):
        assert one["last_epoch"] == other["last_epoch"]


def test_a_run_with_other_numbers_goes_on_exactly_too(compose: Compose) -> None:
    """Its second stop is no other than its first: what changed once has no history to forget."""
    quick = [each for each in QUICK if not each.startswith("scheduler")]
    first = compose(*quick, "scheduler=cosine", output="first")
    train(first)
    faster = (*quick, "scheduler=cosine", "model.hparams.f_optim.lr=0.1")
    whole = trained(compose(*faster, "trainer.max_epochs=3", f"ckpt_path='{last_of(first)}'", output="whole"))
    second = compose(*faster, "trainer.max_epochs=2", f"ckpt_path='{last_of(first)}'", output="second")
    train(second)
    third = trained(compose(*faster, "trainer.max_epochs=3", f"ckpt_path='{last_of(second)}'", output="third"))
    assert_same_weights(third, whole)
    assert third["optimizer_states"][0]["param_groups"] == whole["optimizer_states"][0]["param_groups"]


def test_images_of_an_epoch_do_not_change_within_it(compose: Compose, tmp_path: Path) -> None:
    train(compose(*QUICK, EVERY_STEP % (tmp_path / "steps"), output="whole"))
    with pytest.raises(UserError, match=r"^datamodule\.batch_size: .*end of an epoch only, and this is within one"):
        train(compose(*QUICK, "datamodule.batch_size=32", f"ckpt_path='{tmp_path}/steps/2.ckpt'"))


def test_one_batch_is_not_all_batches(compose: Compose, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = compose(*QUICK, "trainer.limit_train_batches=1", output="one")
    train(config)
    all_of_them = ("trainer.limit_train_batches=1.0", "trainer.max_epochs=2")
    train(compose(*QUICK, *all_of_them, f"ckpt_path='{last_of(config)}'"))
    assert "trainer.limit_train_batches 1 -> 1.0" in caplog.text


def test_other_places_observers_devices_and_lengths_are_no_other_run(compose: Compose, first: Path) -> None:
    others = (
        "trainer.limit_val_batches=1", "trainer.log_every_n_steps=1", "trainer.gpus=0", "trainer.threads=1",
        "datamodule.num_workers=3", "data_dir=elsewhere", "callbacks.best=null", "logger=none",
        "+datamodule.eval_batch_size=100", "+trainer.profiler=null", "+trainer.accumulate_grad_batches=1",
    )  # fmt: skip
    resumed = trained(compose(*QUICK, *others, "trainer.max_epochs=2", f"ckpt_path='{first}'", output="resumed"))
    assert_same_weights(resumed, trained(compose(*QUICK, "trainer.max_epochs=2", output="whole")))


def test_fewer_epochs_than_are_done_are_refused(compose: Compose) -> None:
    config = compose(*QUICK, "trainer.max_epochs=2", output="two")
    train(config)
    with pytest.raises(UserError, match=r"^trainer.max_epochs: expected 2 or more, .*got 1$"):
        train(compose(*QUICK, f"ckpt_path='{last_of(config)}'"))
    train(compose(*QUICK, "trainer.max_epochs=2", f"ckpt_path='{last_of(config)}'"))


# Checkpoints that do not fit


def _weights_alone(saved: dict[str, Any]) -> Any:
    return {"state_dict": saved["state_dict"]}


def _first_edition(saved: dict[str, Any]) -> Any:
    return {key: value for key, value in saved.items() if key != "targetprop"}


CUT = {
    "weights alone": (_weights_alone, "not what a run needs to go on.*train=false evaluates it", None),
    "no optimiser": (lambda saved: {**saved, "optimizer_states": None}, "optimizer_states", None),
    "no loops": (lambda saved: {**saved, "loops": {}}, "does not say where in the run", None),
    "callbacks of another kind": (lambda saved: {**saved, "callbacks": "abc"}, r"\(callbacks\)", None),
    "the first edition": (_first_edition, "first edition", "first edition"),
    "no dictionary": (lambda saved: [1, 2], "no checkpoint of targetprop", "no checkpoint of targetprop"),
    "weights without a name": (lambda saved: saved["state_dict"], "has no state_dict", "has no state_dict"),
    "another program": (
        lambda saved: {"pytorch-lightning_version": "2.6.0", "state_dict": {}},
        "another program",
        "another program",
    ),
    "weights of another network": (lambda saved: {"state_dict": {}}, "not what a run needs", "differs"),
}


@pytest.mark.parametrize("cut", CUT)
def test_a_file_without_what_a_run_needs_is_refused_in_a_sentence(
    compose: Compose, tmp_path: Path, first: Path, cut: str
) -> None:
    change, resumed, evaluated = CUT[cut]
    path = tmp_path / "cut.ckpt"
    saved = torch.load(first, weights_only=True)
    saved["targetprop"]["sealed"] = False
    torch.save(change(saved), path)
    with pytest.raises(UserError, match=f"^ckpt_path: .*{resumed}") as caught:
        train(compose(*QUICK, "trainer.max_epochs=2", f"ckpt_path='{path}'"))
    assert "\n" not in str(caught.value)
    evaluation = compose("model=delta_mirror", "train=false", f"ckpt_path='{path}'")
    if evaluated is None:
        whole = compose("model=delta_mirror", "train=false", f"ckpt_path='{first}'")
        assert train(evaluation) == train(whole)
    else:
        with pytest.raises(UserError, match=f"^ckpt_path: .*{evaluated}"):
            train(evaluation)


# Within an epoch


def test_a_checkpoint_of_a_run_that_ended_within_an_epoch_is_refused(compose: Compose) -> None:
    config = compose(*QUICK, "+trainer.max_steps=2", output="ended")
    train(config)
    with pytest.raises(UserError, match="ended within epoch 1"):
        train(compose(*QUICK, f"ckpt_path='{last_of(config)}'"))


def test_a_checkpoint_between_two_steps_is_refused(compose: Compose, tmp_path: Path, first: Path) -> None:
    saved = torch.load(first, weights_only=True)
    saved["targetprop"].update(position={"epoch": 0, "batch": 1, "step": 0, "accumulated": 1}, sealed=False)
    torch.save(saved, tmp_path / "half.ckpt")
    with pytest.raises(UserError, match=r"half\.ckpt: it was written 1 batches after the last step"):
        train(compose(*QUICK, "trainer.max_epochs=2", f"ckpt_path='{tmp_path / 'half.ckpt'}'"))


# Schedules by steps


def one_cycle_and_constant(optimizer: Optimizer) -> LRScheduler:
    return ChainedScheduler([OneCycleLR(optimizer, 0.1, total_steps=6), ConstantLR(optimizer, 1.0)])


def by(name: str, **numbers: object) -> list[str]:
    given = {"_target_": f"torch.optim.lr_scheduler.{name}", "_partial_": "true", **numbers}
    return [f"+scheduler.{key}={value}" for key, value in given.items()]


@pytest.mark.parametrize(
    ("scheduler", "steps", "rate"),
    [
        (by("OneCycleLR", max_lr=0.1, total_steps=6), 5, 4e-7),
        (by("OneCycleLR", max_lr=0.1, epochs=2, steps_per_epoch=3), 5, 4e-7),
        (by("OneCycleLR", max_lr=0.1, epochs=2, steps_per_epoch="null"), 5, 4e-7),
        (["scheduler=one_cycle"], 5, 0.0004),
        (by("OneCycleLR", max_lr=0.1, total_steps=12), 6, None),
        (by("CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=3), 6, 0.01),
        (by("ExponentialLR", gamma=0.5), 2, 0.01),
        (by("StepLR", step_size=1, gamma=0.1), 2, 0.0004),
    ],
)
def test_a_schedule_is_stepped_as_often_as_it_counts(
    compose: Compose, scheduler: list[str], steps: int, rate: float | None
) -> None:
    settings = (*QUICK, *scheduler)
    config = compose(*settings, "trainer.max_epochs=2", output="whole")
    train(config)
    end, middle = last_of(config), last_of(config).with_name("previous.ckpt")
    whole = torch.load(end, weights_only=True)
    if rate is not None:
        assert whole["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(rate)
    assert whole["lr_schedulers"][0]["last_epoch"] == steps
    resumed = trained(compose(*settings, "trainer.max_epochs=2", f"ckpt_path='{middle}'", output="resumed"))
    assert_same_weights(resumed, whole)
    assert resumed["optimizer_states"][0]["param_groups"] == whole["optimizer_states"][0]["param_groups"]


def test_steps_of_an_epoch_are_known_of_a_run_with_a_length_only(compose: Compose) -> None:
    unbounded = ("trainer.max_epochs=-1", "+trainer.max_steps=5")
    with pytest.raises(UserError, match=r"^scheduler.steps_per_epoch: expected a number of steps, .*got null"):
        train(compose(*QUICK, "scheduler=one_cycle", "scheduler.epochs=2", *unbounded))


def test_schedules_made_of_one_that_counts_steps_count_steps(compose: Compose) -> None:
    chained = [f"+scheduler._target_={__name__}.one_cycle_and_constant", "+scheduler._partial_=true"]
    saved = trained(compose(*QUICK, *chained))
    assert saved["lr_schedulers"][0]["_schedulers"][0]["last_epoch"] == 3


def test_a_batch_that_is_only_added_up_is_no_step_of_a_schedule(compose: Compose) -> None:
    cyclic = by("CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=3)
    saved = trained(compose(*QUICK, *cyclic, "trainer.limit_train_batches=4", "+trainer.accumulate_grad_batches=2"))
    assert saved["lr_schedulers"][0]["last_epoch"] == 2


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (by("OneCycleLR", max_lr=0.1, total_steps=5), r"^scheduler.total_steps: expected 6 or more.*got 5"),
        (by("OneCycleLR", max_lr=0.1), "^scheduler: .*total_steps"),
        (by("CyclicLR", base_lr=0.01), "^scheduler: .*max_lr"),
    ],
)
def test_a_schedule_that_cannot_last_is_refused(compose: Compose, scheduler: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(compose(*QUICK, *scheduler, "trainer.max_epochs=2"))


# Single images


NORM = ("network=norm_vgg", "network.hparams.channels=[4,4,4]", "model=backprop", *QUICK[1:])
LAST = (
    "datamodule.drop_last=false",
    "datamodule.batch_size=68",
    "trainer.limit_train_batches=1.0",
)  # 1293 = 19 * 68 + 1


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (LAST, "datamodule.drop_last"),
        (("datamodule.batch_size=1", "trainer.limit_train_batches=2"), "datamodule.batch_size"),
        (
            (*LAST, "datamodule.val_fraction=0", "datamodule.batch_size=359"),
            "datamodule.drop_last",
        ),  # 1437 = 4 * 359 + 1
        ((*LAST, "datamodule.val_fraction=0.5", "datamodule.batch_size=718"), "datamodule.drop_last"),
    ],
)
def test_a_single_image_is_refused_before_training_where_the_network_takes_none(
    compose: Compose, tmp_path: Path, overrides: tuple[str, ...], key: str
) -> None:
    with pytest.raises(UserError) as caught:
        train(compose(*NORM, *overrides))
    said = str(caught.value)
    assert said.startswith(f"{key}: ")
    assert all(word in said for word in ("one image", "datamodule.drop_last", "datamodule.batch_size"))
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    "settings",
    [
        (*QUICK, *LAST),
        (*QUICK, "datamodule.batch_size=1"),
        (*NORM, *LAST, "trainer.limit_train_batches=19"),
        (*NORM, *LAST, "datamodule.drop_last=true"),
    ],
)
def test_single_images_train_where_the_network_takes_them_or_none_comes(
    compose: Compose, settings: tuple[str, ...]
) -> None:
    train(compose(*settings))


@pytest.mark.slow
def test_a_single_image_of_one_of_several_groups_is_refused(compose: Compose) -> None:
    groups = ("trainer=layer_parallel", "trainer.processes=1", "trainer.data_parallel=2", "trainer.threads=1")
    settings = [*QUICK[1:], "model=layer_parallel_dtp", "network=norm_vgg", "network.hparams.channels=[4,4,4]"]
    settings += ["datamodule.batch_size=4", "datamodule.drop_last=false", "trainer.limit_train_batches=1.0"]
    with pytest.raises(UserError, match=r"^datamodule.drop_last: .* one image for one of 2 groups, .*batch_size"):
        train(compose(*settings, *groups))


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_smallest_batch_is_known_beforehand(rows: int, batch_size: int, drop_last: bool) -> None:
    images = Images(torch.zeros(13, 1, 2, 2, dtype=torch.uint8), torch.zeros(13, dtype=torch.int64), ("a",))
    loaders = [
        BatchLoader(images, batch_size, [0.0], [1.0], shuffle=True, drop_last=drop_last, row=row, rows=rows)
        for row in range(rows)
    ]
    sizes = [[len(labels) for _, labels in loader] for loader in loaders]
    for batches in range(1, len(loaders[0]) + 1):
        assert loaders[0].least(batches) == min(min(each[:batches]) for each in sizes)


def test_trying_one_image_changes_neither_network_nor_random_numbers() -> None:
    images = Images(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64), ("a",))
    loader = BatchLoader(images, 2, [0.0], [1.0], shuffle=True, drop_last=False)
    takes = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(16, 3)).eval()
    before, state = {key: value.clone() for key, value in takes.state_dict().items()}, torch.get_rng_state()
    refuse_single_images(loader, len(loader), takes)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in takes.state_dict().items())
    assert not takes.training
    for refuses in (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)), nn.Sequential(nn.AvgPool2d(4), nn.BatchNorm2d(1))):
        with pytest.raises(UserError, match=r"^datamodule.drop_last: .*more than 1 value per channel"):
            refuse_single_images(loader, len(loader), refuses)
        refuse_single_images(loader, len(loader) - 1, refuses)
    refuse_single_images(loader, len(loader), nn.Linear(7, 7))  # takes nothing, and says so in the first step


# Names that need quoting


NAMES = [
    "runs/epoch=1-step=8.ckpt", "a,b.ckpt", "run(1)/last.ckpt", "runs/[1]/x.ckpt", 'a="b".ckpt', "it's=1.ckpt",
    r"C:\runs\epoch=1.ckpt", "a=1\\", "choice(1,2)", "{a}", "#1", "a&b;c.ckpt", "über/1=2.ckpt", "my runs/1=2.ckpt",
    "a~b", "'half", " a=b ", "1=$HOME`x`!",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_hydra_cannot_read_is_answered_with_how_to_quote_it(name: str) -> None:
    with pytest.raises(UserError) as caught:
        check_overrides([f"ckpt_path={name}"])
    said = str(caught.value)
    assert said.startswith("ckpt_path: ")
    assert "\n" not in said
    proposed = said.partition("quote it, for the shell too: ")[2]
    (override,) = shlex.split(proposed)
    assert check_overrides([override, "output_dir=out"]).ckpt_path == name


def test_a_home_directory_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("/home/me", "/home/a=b"):
        monkeypatch.setenv("HOME", home)
        proposed = quoted("data_dir", "~/data")
        assert proposed is not None
        assert check_overrides([*shlex.split(proposed), "output_dir=out"]).data_dir == f"{home}/data"
        with pytest.raises(UserError, match=f"data_dir=.*{home}/data"):
            check_overrides(["data_dir=~/data"])


def test_sweeps_are_told_how_to_quote_too() -> None:
    refuse_unreadable(["-m", "seed=1,2", "model=dtp,tp", "network.hparams.channels=[4,6]", "+x={a:1}", "~logger.csv"])
    refuse_unreadable(["--config-dir", "a=b=c", "--info", "defaults", "-cd=a=b", "seed=1"])
    for arguments in (
        ["-m", "seed=1,2", "ckpt_path=epoch=1.ckpt"],
        ["ckpt_path=epoch=1.ckpt", "--multirun", "seed=1,2"],
    ):
        with pytest.raises(UserError, match=r"""'ckpt_path="epoch=1\.ckpt"'$"""):
            refuse_unreadable(arguments)
    with pytest.raises(UserError, match=r"^seed: Several values are for a sweep \(-m\)"):
        refuse_unreadable(["seed=1,2"])


def test_what_is_proposed_works_in_a_shell(compose: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "it's (1), [a] $b"
    folder.mkdir()
    config = compose(*QUICK)
    train(config)
    (folder / "epoch=1-step=8.ckpt").write_bytes(last_of(config).read_bytes())
    settings = "model=delta_mirror network.hparams.channels=[4,6] train=false trainer.threads=1 logger=none"
    override = f"ckpt_path={folder / 'epoch=1-step=8.ckpt'}"

    def ended(argument: str) -> subprocess.CompletedProcess[str]:
        command = f"{shlex.quote(sys.executable)} -m targetprop {settings} {argument}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)

    refused = ended(shlex.quote(override))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    works = ended(refused.stderr.partition("quote it, for the shell too: ")[2].strip())
    assert works.returncode == 0, works.stderr
    assert "top-1" in works.stdout
