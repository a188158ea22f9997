"""What users of Lightning and of other projects with Hydra type by habit works, or is answered with our key."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from targetprop.app import environment
from targetprop.app.cli import arguments_of
from targetprop.app.habits import OPTIONS, RENAMED, first_of_sweep, translated
from targetprop.app.overrides import check_overrides
from targetprop.app.schema.datamodule import BORDERS, IMAGES, LABELS, READINGS
from targetprop.app.schema.logger import PACKAGES
from targetprop.app.schema.network import BLOCKS, CELLS, NORMS, STEMS
from targetprop.app.schema.plain import VIEWS
from targetprop.feedback.base import OptimizerSpec
from targetprop.utils.errors import UserError

F, B = "model.hparams.f_optim", "model.hparams.b_optim"
NOTHING: dict[str, Any] = {}


def composed(command: str) -> DictConfig:
    """The configuration of a command line, `python main.py` left out; of a sweep that of its first run."""
    arguments = [each for each in arguments_of(command.split()) if each != "-m"]
    return check_overrides([first for each in arguments if (first := first_of_sweep(each)) is not None])


WORKS: list[tuple[str, dict[str, Any]]] = [
    ("", {"seed": 123}),
    ("trainer.max_epochs=3 datamodule.batch_size=64 seed=1", {"trainer.max_epochs": 3, "datamodule.batch_size": 64}),
    # Trainers
    ("trainer=cpu", {"trainer.gpus": 0, "trainer.max_epochs": 20}),
    ("trainer=gpu", {"trainer.gpus": 1, "trainer.max_epochs": 20}),
    ("+trainer.gradient_clip_val=0.5", {"trainer.gradient_clip_val": 0.5}),
    ("trainer.gradient_clip_val=0.5", {"trainer.gradient_clip_val": 0.5}),
    ("++trainer.gradient_clip_val=0.5", {"trainer.gradient_clip_val": 0.5}),
    ("trainer.overfit_batches=2", {"trainer.overfit_batches": 2}),
    ("trainer.profiler=simple", {"trainer.profiler": "simple"}),
    ("trainer.accumulate_grad_batches=2", {"trainer.accumulate_grad_batches": 2}),
    ("trainer.deterministic=true", {"trainer.deterministic": True}),
    ("trainer.min_epochs=1", {"trainer.min_epochs": 1}),
    ("trainer.fast_dev_run=true", {"trainer.fast_dev_run": True}),
    ("+trainer.fast_dev_run=true", {"trainer.fast_dev_run": True}),
    ("++trainer.fast_dev_run=true", {"trainer.fast_dev_run": True}),
    # Loggers and callbacks
    ("logger=csv", {"logger.csv.version": "csv", "logger.tensorboard": None}),
    ("logger=tensorboard", {"logger.csv": None}),
    ("logger=[csv,tensorboard]", {"logger.csv.version": "csv"}),
    ("logger=null", {"logger": NOTHING}),
    ("logger=false", {"logger": NOTHING}),
    ("~logger", {"logger": NOTHING}),
    ("callbacks=null", {"callbacks": NOTHING}),
    ("callbacks=none", {"callbacks": NOTHING}),
    ("scheduler=null", {"scheduler": NOTHING}),
    ("callbacks=early_stopping callbacks.early_stopping.patience=3", {"callbacks.early_stopping.patience": 3}),
    # Debugging
    ("debug=default", {"trainer.max_epochs": 1}),
    ("debug=fdr", {"trainer.fast_dev_run": True}),
    ("debug=limit", {"trainer.max_epochs": 3, "trainer.limit_train_batches": 3}),
    ("debug=overfit", {"datamodule.reshuffle": False}),
    ("debug=profiler", {"trainer.profiler": "simple"}),
    # What a run is called, and what comes of it
    ("task_name=mine tags=[first,try]", {"task_name": "mine", "tags": ["first", "try"]}),
    ("optimized_metric=val/accuracy", {"optimized_metric": "val/accuracy"}),
    ("print_config=true", {"print_config": True}),
    ("train=true test=false", {"test": False}),
    ("ckpt_path=null", {"ckpt_path": None}),
    # Optimisers: of another type, with torch's numbers where none are given; every option without a +
    (f"{F}.type=adam", {f"{F}.type": "adam", f"{F}.lr": 1e-3, f"{F}.momentum": 0.0, f"{F}.weight_decay": 1e-4}),
    (f"{F}.type=adam {F}.lr=0.01", {f"{F}.lr": 0.01, f"{F}.momentum": 0.0}),
    (f"{F}.type=rmsprop", {f"{F}.lr": 1e-2, f"{F}.momentum": 0.0}),
    (f"{F}.type=rmsprop {F}.momentum=0.5", {f"{F}.momentum": 0.5}),
    (f"{F}.type=sgd", {f"{F}.lr": 0.04, f"{F}.momentum": 0.9}),
    (f"{B}.type=adam", {f"{B}.lr": 1e-3, f"{F}.lr": 0.04}),
    (f"model=drl network=mlp {B}.type=sgd", {f"{B}.lr": 1e-3, f"{B}.momentum": 0.0}),
    (f"{F}.type=adam {F}.betas=[0.8,0.9] {F}.amsgrad=true", {f"{F}.betas": [0.8, 0.9], f"{F}.amsgrad": True}),
    (f"{F}.nesterov=true {B}.dampening=0.1", {f"{F}.nesterov": True, f"{B}.dampening": 0.1}),
    (f"{F}.type=rmsprop {F}.alpha=0.9 {F}.centered=true", {f"{F}.alpha": 0.9, f"{F}.centered": True}),
    (f"{F}.lr=[0.1,0.2,0.3]", {f"{F}.lr": [0.1, 0.2, 0.3]}),
    # Schedules
    ("scheduler=plateau", {"scheduler.monitor": "val/accuracy", "scheduler.mode": "max"}),
    ("scheduler=plateau datamodule=teacher", {"scheduler.monitor": "val/loss", "scheduler.mode": "min"}),
    ("scheduler=warmup_cosine scheduler.warmup_epochs=0.5", {"scheduler.warmup_epochs": 0.5}),
    ("scheduler=one_cycle", {"scheduler.epochs": 20}),
    ("scheduler=step scheduler.interval=step", {"scheduler.interval": "step"}),
    # Sweeps
    ("-m seed=1,2,3", {"seed": 1}),
    ("-m model=dtp,backprop logger=null", {"logger": NOTHING}),
    (f"-m {F}.type=adam seed=1,2", {f"{F}.lr": 1e-3}),
    (f"-m {F}.type=adam,sgd", {f"{F}.lr": 0.04}),
]


@pytest.mark.parametrize(("command", "values"), WORKS, ids=[command or "nothing" for command, _ in WORKS])
def test_a_habit_works(command: str, values: dict[str, Any]) -> None:
    config = composed(command)
    for key, value in values.items():
        found = OmegaConf.select(config, key)
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        assert (found or NOTHING) == value if value == NOTHING else found == value, key


HINTED: list[tuple[str, str]] = [
    ("data=cifar10", "datamodule=cifar10"),
    ("data.batch_size=64", "datamodule.batch_size=64"),
    ("model.optimizer.lr=0.1", "model.hparams.f_optim.lr=0.1"),
    ("model.optimizer.weight_decay=0", "model.hparams.f_optim.weight_decay=0"),
    ("model.lr=0.1", "model.hparams.f_optim.lr=0.1"),
    ("lr=0.1", "model.hparams.f_optim.lr=0.1"),
    ("model.scheduler.gamma=0.1", "scheduler.gamma=0.1"),
    ("model.net.channels=[8]", "network.hparams.channels=[8]"),
    ("model.compile=true", "trainer.cuda_graph=true"),
    ("batch_size=64", "datamodule.batch_size=64"),
    ("epochs=3", "trainer.max_epochs=3"),
    ("trainer.epochs=3", "trainer.max_epochs=3"),
    ("trainer=ddp", "trainer=layer_parallel trainer.processes=1 trainer.data_parallel=2"),
    ("trainer=ddp_sim", "trainer=layer_parallel trainer.gpus=0"),
    ("trainer=mps", "trainer=cpu"),
    ("trainer.accelerator=cpu", "trainer.gpus=0 is the CPU"),
    ("+trainer.accelerator=gpu", "trainer.gpus says where a run is"),
    ("trainer.devices=4", "trainer.gpus says how many"),
    ("+trainer.devices=1", "trainer.gpus says where a run is"),
    ("trainer.strategy=ddp", "trainer=layer_parallel"),
    ("trainer.max_epoch=3", "Did you mean 'max_epochs'"),
    ("trainer.max_epochs=three", "expected a whole number"),
    ("trainer.precision=16", "expected 32-true or 64-true or bf16-mixed"),
    ("logger.wandb.project=mine", "Only logger=wandb has it"),
    ("callbacks.early_stopping.patience=3", "Only callbacks=early_stopping has it"),
    ("callbacks=model_checkpoint", "callbacks.best"),
    ("callbacks.model_checkpoint.monitor=val/loss", "callbacks.best.monitor=val/loss"),
    ("callbacks=rich_progress_bar", "callbacks.progress"),
    ("callbacks.model_summary.max_depth=1", "trainer.enable_model_summary"),
    ("paths.data_dir=/data", "data_dir=/data"),
    ("paths.output_dir=/runs", "hydra.run.dir=/runs"),
    ("paths.root_dir=.", "hydra.run.dir and data_dir"),
    ("paths=default", "hydra.run.dir and data_dir"),
    ("extras.print_config=true", "print_config=true"),
    ("extras.ignore_warnings=true", "PYTHONWARNINGS=ignore"),
    ("extras.enforce_tags=true", "tags=[...]"),
    ("experiment=example", "cifar10_small"),
    ("+experiment=cifar10_small", "leave out the +"),
    ("+seed=3", "leave out the +"),
    ("debug=fast", "Valid: default, fdr, limit, overfit, profiler"),
    ("scheduler=cosin", "Did you mean 'cosine'"),
    ("model=?", "Valid: amortised_dtp"),
    ("resume_from_checkpoint=x.ckpt", "ckpt_path=x.ckpt"),
    ("name=mine", "task_name=mine"),
    ("-m data=cifar10,mnist", "datamodule=cifar10"),
    ("-m trainer.max_epochs=three,4", "expected a whole number"),
    ("-m model=dpt,tp", "Did you mean 'dtp'"),
]


@pytest.mark.parametrize(("command", "hint"), HINTED, ids=[command for command, _ in HINTED])
def test_a_habit_is_answered_with_our_key(command: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        composed(command)
    said = str(caught.value)
    assert hint in said
    assert "\n" not in said
    assert caught.value.key


LOGGERS = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio", "many_loggers": "wandb"}


@pytest.mark.parametrize("choice", LOGGERS)
@pytest.mark.parametrize("installed", [True, False])
def test_a_logger_needs_its_package(choice: str, installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    there = object() if installed else None
    monkeypatch.setattr("targetprop.app.schema.early.find_spec", lambda name: there if name in PACKAGES.values() else 1)
    if installed:
        assert composed(f"logger={choice} task_name=mine").logger
        return
    package = LOGGERS[choice]
    with pytest.raises(UserError) as caught:
        composed(f"logger={choice}")
    assert str(caught.value) == (
        f"logger.{package}: it needs the package {package}, which is not installed: pip install {package}"
    )


def test_packages_of_loggers_are_sought_by_the_names_that_they_have() -> None:
    for path in PACKAGES:
        if path.startswith("lightning."):
            assert find_spec(path.rpartition(".")[0])


def test_every_key_that_is_proposed_is_there() -> None:
    config = check_overrides([])
    for key, ours in RENAMED.items():
        if not ours.startswith("hydra."):
            assert OmegaConf.select(config, ours, default=NOTHING) is not NOTHING, key
        with pytest.raises(UserError, match=f"Here it is {ours}"):
            composed(f"{key}=1")


def test_what_is_known_before_torch_is_imported_is_what_is_there() -> None:
    from targetprop.data import augment, cifar100, sequential
    from targetprop.data import views as those
    from targetprop.models.mlp import NORMS as NORMS_OF_MLP
    from targetprop.models.rnn import CELLS as CELLS_OF_RNN
    from targetprop.models.torchvision_resnet import BLOCKS as BLOCKS_OF_RESNET
    from targetprop.models.torchvision_resnet import STEMS as STEMS_OF_RESNET

    assert set(VIEWS) == set(those.VIEWS)
    assert set(BORDERS) == set(augment.BORDERS)
    assert set(LABELS) == set(cifar100.LABELS)
    assert set(IMAGES) == set(sequential.IMAGES)
    assert READINGS == sequential.READINGS
    assert NORMS == NORMS_OF_MLP
    assert set(CELLS) == set(CELLS_OF_RNN)
    assert set(BLOCKS) == set(BLOCKS_OF_RESNET)
    assert STEMS == STEMS_OF_RESNET
    assert set(OPTIONS) < set(OptimizerSpec.__dataclass_fields__)


TYPO = """
import sys
sys.argv = ["main.py", *sys.argv[1:]]
from targetprop.app.cli import main
try:
    main()
finally:
    print(sorted({"torch", "lightning", "matplotlib", "numpy"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "slip",
    ["trainer.max_epochs=three", "model=dpt", "trainer.max_epoch=3", "network.hparams.channels=8", "seed=-1",
     "datamodule.batch_size=0.5", "callbacks.last.every_n_minutes=-1", "scheduler.T_max=x", "views=mirrored",
     "logger=wandb", "data=cifar10", "-m seed=1,2 trainer.max_epochs=x"],
)  # fmt: skip
def test_a_slip_is_answered_before_torch_is_imported_and_leaves_nothing(slip: str, tmp_path: Path) -> None:
    call = [sys.executable, "-c", TYPO, *slip.split()]
    ended = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == "[]\n"
    assert not list(tmp_path.iterdir())


def test_the_version_is_ours(tmp_path: Path) -> None:
    from targetprop.version import __version__

    call = [sys.executable, "-m", "targetprop", "--version"]
    ended = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.stdout == f"targetprop {__version__}\n"


def test_variables_of_a_file_are_taken_where_they_are_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('# a remark\nDATA_DIR=/data\nexport WANDB_API_KEY="a b"\nHOME=/nowhere\n')
    variables = {"HOME": "/home/me"}
    environment.load_environment(tmp_path, variables)
    assert variables == {"HOME": "/home/me", "DATA_DIR": "/data", "WANDB_API_KEY": "a b"}


def test_no_file_of_variables_is_no_mistake(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    environment.load_environment(tmp_path, variables)
    assert not variables


@pytest.mark.parametrize(("content", "words"), [(b"A=1\n[section]\n", r"line 2.*\[section\]"), (b"A=\xff\n", "utf-8")])
def test_a_file_of_variables_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{tmp_path}/\.env.*{words}"):
        environment.load_environment(tmp_path, {})


def test_only_what_is_spelled_in_another_way_is_changed() -> None:
    same = [
        "trainer.max_epochs=3",
        "scheduler.T_max=3",
        "scheduler.patience=3",
        "model=dtp",
        "logger=csv",
        "~logger",
        "--help",
        "trainer.gpsu=1",
        f"{F}.typo=1",
        "+model.hparams.noise=1",
    ]
    assert translated(same) == same


def test_what_is_said_twice_for_an_optimiser_stays_as_it_is() -> None:
    config = composed(f"{F}.type=adam {F}.lr=0.5 {F}.momentum=0 {F}.nesterov=false")
    assert config.model.hparams.f_optim.lr == 0.5
