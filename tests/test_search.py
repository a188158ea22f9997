"""Searches: what is varied, what is told to the study, how one goes on, and what is left at the end."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import yaml
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf, open_dict

from hydra_plugins.targetprop_search import Search
from targetprop.app.overrides import check_overrides
from targetprop.utils.errors import UserError

optuna = pytest.importorskip("optuna")
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from targetprop.app.callbacks.prune import Prune  # noqa: E402
from targetprop.app.search.search import Settings, search  # noqa: E402
from targetprop.app.search.space import space_of  # noqa: E402
from targetprop.app.search.study import UNPRUNED, open_study  # noqa: E402
from targetprop.app.sweep import FAILED  # noqa: E402

PARAMS = {"model.hparams.beta": "interval(0.2, 1)", "model.hparams.f_optim.lr": "tag(log, interval(1e-3, 0.3))"}
Batch = Sequence[Sequence[str]]


class Jobs:
    """Stands where a launcher does; each job's value is that of a function of what it is given."""

    def __init__(self, value: Callable[[dict[str, str]], float | None]) -> None:
        self.value = value
        self.given: list[dict[str, str]] = []
        self.numbers: list[int] = []
        self.sizes: list[int] = []

    def __call__(self, batch: Batch, initial_job_idx: int) -> list[JobReturn]:
        self.sizes.append(len(batch))
        made = []
        for number, overrides in enumerate(batch, start=initial_job_idx):
            given = dict(each.split("=", 1) for each in overrides)
            self.numbers.append(number)
            self.given.append(given)
            made.append(JobReturn(status=JobStatus.COMPLETED, _return_value=self.value(given)))
        return made


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pictures take the most time of these tests; one test looks at one."""
    if "picture" not in request.node.name:
        monkeypatch.setattr("targetprop.app.search.results.draw", lambda *arguments: None)


def settings(**numbers: Any) -> Settings:
    return Settings(**{"n_trials": 4, "n_jobs": 1, "seed": 1, "storage": None, "study_name": "search", **numbers})


def beta(given: dict[str, str]) -> float:
    return float(given["model.hparams.beta"])


def states(folder: Path, **where: Any) -> list[TrialState]:
    return [each.state for each in open_study(folder, "search", where.get("storage")).trials]


def test_words_of_hydra_are_distributions_of_optuna_and_what_is_typed_replaces_the_file() -> None:
    params = {
        "a": "interval(0.2, 1)", "b": "tag(log, interval(1e-3, 0.3))", "c": "int(interval(1, 8))",
        "d": "range(2, 9, 3)", "e": "choice(elu, relu)", "f": "[1,2],[3,4]", "g": 3,
        "h": "range(0.0, 1.0, 0.25)", "i": "choice(1,2)",
    }  # fmt: skip
    space = space_of(params, ["hparams_search=dtp", "i=7", "j=range(3)", "a=interval(0, 2)"])
    assert space.varied == {
        "a": FloatDistribution(0, 2), "b": FloatDistribution(1e-3, 0.3, log=True), "c": IntDistribution(1, 8),
        "d": IntDistribution(2, 8, step=3), "e": CategoricalDistribution(["elu", "relu"]),
        "f": CategoricalDistribution(["[1,2]", "[3,4]"]), "h": FloatDistribution(0, 0.75, step=0.25),
        "j": IntDistribution(0, 2),
    }  # fmt: skip
    assert space.fixed == ["g=3", "hparams_search=dtp", "i=7"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"^hydra\.sweeper\.params: expected something to vary, interval"),
        ({"a": "interval(1, 0)"}, r"^a: expected interval.*got 'interval\(1, 0\)"),
        ({"a": "interval(1"}, r"^a: expected interval.*got 'interval\(1'"),
        ({"a": "tag(log, interval(0, 1))"}, r"^a: expected interval"),
        ({"a": "range(3, 3)"}, r"^a: expected interval.*it is empty"),
    ],
)
def test_what_cannot_be_varied_is_refused_by_its_key(params: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        space_of(params, [])


def test_a_picture_shows_all_kinds_of_what_is_varied(tmp_path: Path) -> None:
    params = {**PARAMS, "activation": "choice(elu, relu)", "depth": "range(1, 5)", "one": "interval(1, 1)"}
    search([], params, settings(n_trials=3), str(tmp_path), Jobs(beta))
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_finds_what_is_good_and_leaves_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs(lambda given: 1 - (beta(given) - 0.6) ** 2)
    best = search(["seed=7"], PARAMS, settings(n_trials=25), str(tmp_path), jobs)
    assert best > 0.999
    assert jobs.numbers == list(range(25))
    assert all(given["seed"] == "7" for given in jobs.given)
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert found["best_value"] == best
    assert found["best_params"]["model.hparams.beta"] == beta(jobs.given[found["trial"]])
    said = capsys.readouterr().out
    assert "10 best of 25 trials" in said
    assert f"seed=7 model.hparams.beta={beta(jobs.given[found['trial']])}" in said


def test_a_search_goes_on_and_tries_nothing_twice(tmp_path: Path) -> None:
    whole = [Jobs(beta), Jobs(beta)]
    for count, jobs in zip((3, 5), whole, strict=True):
        search([], PARAMS, settings(n_trials=count), str(tmp_path), jobs)
    assert [jobs.numbers for jobs in whole] == [[0, 1, 2], [3, 4]]
    tried = [beta(given) for jobs in whole for given in jobs.given]
    assert len(set(tried)) == 5
    search([], PARAMS, settings(n_trials=5), str(tmp_path), again := Jobs(beta))
    assert again.given == []


def test_a_trial_that_was_interrupted_is_tried_again(tmp_path: Path) -> None:
    def interrupted(given: dict[str, str]) -> float:
        if len(jobs.given) == 2:
            raise KeyboardInterrupt
        return beta(given)

    jobs = Jobs(interrupted)
    with pytest.raises(KeyboardInterrupt):
        search([], PARAMS, settings(n_trials=3), str(tmp_path), jobs)
    later = Jobs(beta)
    search([], PARAMS, settings(n_trials=3), str(tmp_path), later)
    assert later.given[0] == jobs.given[1]
    assert later.numbers == [2, 3]
    assert states(tmp_path) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


def test_failures_and_divergence_are_told_from_values(tmp_path: Path) -> None:
    def ends(given: dict[str, str]) -> float:
        number = len(jobs.given) - 1
        if number == 1:
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / FAILED).write_text("a reason")
        return [0.5, -math.inf, -math.inf, -0.2][number]

    jobs = Jobs(ends)
    assert search([], PARAMS, settings(), str(tmp_path), jobs) == 0.5
    assert states(tmp_path) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]


def test_a_search_minimises_where_less_is_better_and_its_study_is_for_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs(lambda given: math.inf if len(jobs.given) == 1 else 2 + beta(given))
    best = search([], PARAMS, settings(n_trials=4), str(tmp_path), jobs, minimize=True)
    assert best == min(2 + beta(given) for given in jobs.given[1:])
    assert yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())["best_value"] == best
    assert states(tmp_path) == [TrialState.PRUNED] + [TrialState.COMPLETE] * 3
    values = re.findall(r"\b[23]\.\d{4}\b", capsys.readouterr().out)
    assert [float(each) for each in values[:3]] == sorted(float(each) for each in values[:3])
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.study_name: .* more is better, .* where less is"):
        search([], PARAMS, settings(n_trials=5), str(tmp_path), jobs)


@pytest.mark.parametrize(
    ("task", "metric", "minimize"),
    [
        ("classification", None, False), ("regression", None, False), ("regression", "val/mse", True),
        ("regression", "test/r2", False), ("tokens", None, True), ("characters", "test/perplexity", True),
    ],
)  # fmt: skip
def test_the_task_says_which_way_a_search_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, metric: str | None, minimize: bool
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr("targetprop.app.search.search.search", lambda *_, **named: told.update(named))
    sweeper = Search(PARAMS, n_trials=1, n_jobs=1, seed=1, storage=None, study_name="search")
    sweeper.config = check_overrides([f"task={task}", f"optimized_metric={metric or 'null'}"])
    with open_dict(sweeper.config):
        sweeper.config.hydra = {"sweep": {"dir": str(tmp_path)}}
    sweeper.launcher = SimpleNamespace(launch=Jobs(beta))  # type: ignore[assignment]
    sweeper.sweep([])
    assert told == {"minimize": minimize}


def test_a_search_without_any_result_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^hydra\.sweeper: no trial has a result; what each says"):
        search([], PARAMS, settings(n_trials=2), str(tmp_path), Jobs(lambda given: -math.inf))


def test_as_many_are_chosen_at_a_time_as_the_launcher_runs(tmp_path: Path) -> None:
    jobs = Jobs(beta)
    search([], PARAMS, settings(n_trials=5, n_jobs=2), str(tmp_path), jobs)
    assert jobs.sizes == [2, 2, 1]


def test_a_study_may_be_kept_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    search([], PARAMS, settings(n_trials=2, storage=url), str(tmp_path / "a"), Jobs(beta))
    search([], PARAMS, settings(n_trials=3, storage=url), str(tmp_path / "b"), later := Jobs(beta))
    assert later.numbers == [2]
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.storage: nothing://x cannot be used"):
        search([], PARAMS, settings(storage="nothing://x"), str(tmp_path / "c"), Jobs(beta))


@pytest.mark.parametrize(("number", "value"), [("n_trials", 0), ("n_jobs", 1.5), ("seed", -1), ("study_name", "")])
def test_settings_that_do_not_fit_are_refused(number: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^{number}: expected"):
        settings(**{number: value})


class Trainer(L.Trainer):
    """Says what a callback asks for."""

    is_global_zero = True
    sanity_checking = False
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)  # type: ignore[assignment]
    callback_metrics = property(lambda self: self.metrics)
    current_epoch = property(lambda self: self.epoch)

    def __init__(self, metrics: dict[str, float], epoch: int, fn: str = "fit") -> None:
        self.metrics, self.epoch, self.should_stop = metrics, epoch, False
        self.state = SimpleNamespace(fn=fn)  # type: ignore[assignment]


def ended_at(folder: Path, number: int, values: Sequence[float], mode: str = "max") -> int | None:
    """The epoch at which a trial with these validations is ended; None if it is not."""
    callback = Prune("val/accuracy", mode, folder, number, "search")
    for epoch, value in enumerate(values):
        trainer = Trainer({"val/accuracy": value}, epoch)
        callback.on_validation_end(trainer, L.LightningModule())
        if trainer.should_stop:
            return epoch
    return None


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_a_trial_worse_than_the_others_is_ended_early_and_told_as_such(
    tmp_path: Path, mode: str, sign: int, minimize: bool
) -> None:
    ends: list[int | None] = []

    def run(given: dict[str, str]) -> float:
        worse = len(jobs.given) > UNPRUNED + 1
        ends.append(ended_at(tmp_path, len(jobs.given) - 1, [sign * (0.1 if worse else 0.5)] * 3, mode))
        return 0.5

    jobs = Jobs(run)
    search([], PARAMS, settings(n_trials=UNPRUNED + 2), str(tmp_path), jobs, minimize=minimize)
    assert ends[:-1] == [None] * (UNPRUNED + 1)
    assert ends[-1] == 0
    assert states(tmp_path) == [TrialState.COMPLETE] * (UNPRUNED + 1) + [TrialState.PRUNED]


def test_evaluations_are_not_told(tmp_path: Path) -> None:
    Prune("val/accuracy", "max", tmp_path, 0, "search").on_validation_end(
        Trainer({"val/accuracy": 0.5}, 0, "validate"), L.LightningModule()
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("params", "numbers", "message"),
    [
        ({"a": "interval(1, 0)"}, {}, r"^Error: a: expected interval"),
        (PARAMS, {"n_trials": 0}, r"^Error: hydra\.sweeper\.n_trials: expected"),
        (PARAMS, {"n_trial": 3}, r"^Error: hydra\.sweeper\.n_trial: there is no such"),
    ],
)
def test_hydra_is_told_of_a_mistake_in_one_line(
    tmp_path: Path, params: dict[str, str], numbers: dict[str, Any], message: str
) -> None:
    given = {"n_trials": 4, "n_jobs": 1, "seed": 1, "storage": None, "study_name": "search", **numbers}
    sweeper = Search(params, **given)
    task = {"_target_": "targetprop.app.task.Classification", "monitor": "val/accuracy", "mode": "max"}
    sweeper.config = OmegaConf.create(
        {"task": task, "optimized_metric": None, "hydra": {"sweep": {"dir": str(tmp_path)}}}
    )
    sweeper.launcher = SimpleNamespace(launch=Jobs(beta))  # type: ignore[assignment]
    with pytest.raises(SystemExit, match=message):
        sweeper.sweep([])
