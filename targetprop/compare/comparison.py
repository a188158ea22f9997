"""A comparison from its plan to its page: probe, estimate, search, freeze, fresh seeds, results.

Everything is kept as soon as it is there, so that the same command goes on wherever one was stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.markup import escape

from targetprop.app.score import Score
from targetprop.compare import frozen as frozen_file
from targetprop.compare import results
from targetprop.compare.contest import Contest, contests
from targetprop.compare.estimate import estimates, seconds_of_a_run, sentence, table_of
from targetprop.compare.frozen import Frozen, fresh_trials
from targetprop.compare.gather import gather
from targetprop.compare.plan import Plan
from targetprop.compare.probe import Probe, probe
from targetprop.compare.processes import Running, run_all
from targetprop.compare.progress import telling
from targetprop.compare.records import Record, adopt, keep, missing
from targetprop.compare.results import Results
from targetprop.compare.search import grid, recorded, searched
from targetprop.compare.trial import Trial, search_trials
from targetprop.utils.errors import UserError


@dataclass(frozen=True)
class Means:
    """What a comparison runs with, none of which decides its results.

    Attributes:
        folder: of its records.
        frozen: file of its choices.
        jobs: runs at a time; None: as many as there are cores for their threads, or one where they run on a GPU.
        threads: of each run.
        data: directory that holds the data sets; None: that of the configuration.
    """

    folder: Path
    frozen: Path
    jobs: int | None
    threads: int
    data: Path | None


@dataclass
class Comparison:
    """A comparison under way.

    Attributes:
        failed: runs that failed in this process, and why; the next one makes them again.
        left_out: by contest, rules that have no choice of rate, and why.
    """

    plan: Plan
    means: Means
    console: Console
    probes: dict[str, Probe] = field(default_factory=dict)
    contests: list[Contest] = field(default_factory=list)
    failed: dict[Trial, str] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def jobs(self) -> int:
        """Runs at a time."""
        if self.means.jobs is not None:
            return self.means.jobs
        on_gpu = any(probe.machine["device"] != "cpu" for probe in self.probes.values())
        return 1 if on_gpu else max(1, cores() // self.means.threads)

    def prepare(self) -> None:
        """Find out what every rule is and takes, unless that is known, and tell what the whole comparison takes."""
        for task in self.plan.tasks:
            path = self.means.folder / "probes" / f"{task.name}.json"
            self.console.print(f"Timing the steps of {len(self.plan.rules)} rules on {task.data}, {task.network}.")
            self.probes[task.name] = probe(self.plan, task, path, self.means.threads, self.means.data)
            for rule, why in self.probes[task.name].failed.items():
                self.console.print(f"{escape(rule)} is left out: {escape(why)}", style="red", soft_wrap=True)
        kept = frozen_file.read(self.means.frozen)
        placed = {name: each.rules for name, each in kept.items()}
        self.contests = contests(self.plan, self.probes, placed)
        frozen_file.check(kept, self.contests, self.plan, self.means.frozen)
        if not self.contests:
            why = next((why for probe in self.probes.values() for why in probe.failed.values()), "no other rules")
            raise UserError(f"there is nothing to compare {self.plan.reference} with: {why}", key="rules")
        self.left_out = {name: dict(probe.failed) for name, probe in self.probes.items()}
        for contest in self.contests:
            self.left_out[contest.name] = dict(self.probes[contest.task.name].failed)
        made = estimates(self.plan, self.contests, self.probes)
        self.console.print(table_of(made))
        self.console.print(sentence(made, self.jobs), soft_wrap=True)

    def adopt(self, source: Path) -> None:
        """Take over records of runs that this comparison would make."""
        kept, taken = frozen_file.read(self.means.frozen), 0
        while True:  # the grid grows with the records that are there
            trials = [trial for contest in self.contests for trial in self._search_trials(contest, kept)]
            for contest in self.contests:
                if contest.name in kept:
                    trials += fresh_trials(self.plan, contest, kept[contest.name])
            if not (more := adopt(source, self.means.folder, trials)):
                break
            taken += more
        self.console.print(f"{taken} records of {source} are taken over.")

    def search(self) -> None:
        """Run what is missing of the search, without the test set, and freeze the choices."""
        kept = frozen_file.read(self.means.frozen)
        while True:
            lacking = [
                trial
                for contest in self.contests
                for trial in missing(self.means.folder, self._search_trials(contest, kept))
                if trial not in self.failed
            ]
            if not lacking:
                break
            self._run("search", lacking)
        for contest in self.contests:
            self._freeze(contest, kept)
        frozen_file.write(self.means.frozen, kept)

    def fresh(self) -> None:
        """Run what is missing of the fresh seeds, with the frozen settings, and the test set at the end of each run."""
        kept = frozen_file.read(self.means.frozen)
        trials = [
            trial
            for contest in self.contests
            if contest.name in kept
            for trial in fresh_trials(self.plan, contest, kept[contest.name])
        ]
        if lacking := missing(self.means.folder, trials):
            self._run("fresh seeds", lacking)
        if not self.failed:  # else what those said is there to be read
            shutil.rmtree(self.means.folder / "under_way", ignore_errors=True)

    def results(self) -> Results:
        """What the records say, written to results.json."""
        kept = frozen_file.read(self.means.frozen)
        made = gather(self.plan, self.contests, kept, self.probes, self.means.folder, self.left_out)
        results.write(made, self.means.folder / "results.json")
        return made

    def _search_trials(self, contest: Contest, kept: dict[str, Frozen]) -> list[Trial]:
        """Runs of the search that the records so far ask for: of all rules, or of those without a choice yet."""
        if contest.name in kept:
            rules = [rule for rule in contest.rules if rule not in kept[contest.name].rules]
            return search_trials(self.plan, contest, rules, kept[contest.name].rates)
        return search_trials(self.plan, contest, contest.rules, self._grid(contest))

    def _grid(self, contest: Contest) -> tuple[float, ...]:
        look = recorded(self.plan, contest, self.means.folder)
        return grid(self.plan, self._sound(contest), look, contest.score)

    def _sound(self, contest: Contest) -> list[str]:
        """Rules none of whose runs of the search have failed."""
        failed = {each.rule for each in self.failed if (each.contest, each.phase) == (contest.name, "search")}
        return [rule for rule in contest.rules if rule not in failed]

    def _freeze(self, contest: Contest, kept: dict[str, Frozen]) -> None:
        """Add the choices of a contest's rules that have none yet, of those whose search is complete."""
        if contest.name not in kept:
            rates = list(self._grid(contest))
            kept[contest.name] = Frozen(rates, list(self.plan.search.seeds), contest.steps)
        frozen = kept[contest.name]
        look = recorded(self.plan, contest, self.means.folder)
        for rule in contest.rules:
            if rule in frozen.rules:
                continue
            found = searched(self.plan, rule, frozen.rates, look)
            if found is None:
                mine = (contest.name, rule)
                whys = [why for trial, why in self.failed.items() if (trial.contest, trial.rule) == mine]
                self.left_out[contest.name][rule] = f"{len(whys)} runs of its search failed: {whys[0] if whys else ''}"
            else:
                frozen.rules[rule] = frozen_file.choose(contest, self.plan, rule, found)
        if self.plan.reference not in frozen.rules:
            del kept[contest.name]
            why = self.left_out[contest.name][self.plan.reference]
            raise UserError(f"the reference has no choice of rate in {contest.name}: {why}", key=self.plan.reference)

    def _run(self, what: str, trials: Sequence[Trial]) -> None:
        """Run them and keep every record as soon as it is there."""
        means, left, folder = self.means, list(trials), self.means.folder / "under_way"
        expected = self._expected(trials)
        self.console.print(f"{len(trials)} runs, {what}, {self.jobs} at a time.")
        machine = next(iter(self.probes.values())).machine
        paces = [1.0]  # how many times as long as expected runs take
        with telling(self.console, what, len(trials)) as tell:
            for run in run_all(trials, folder, self.jobs, means.threads, means.data, machine):
                left.remove(run.trial)
                said, seconds = self._keep(run)
                paces = [*paces[-20:], seconds / expected[run.trial]] if seconds else paces
                remains = fmean(paces) * sum(expected[trial] for trial in left) / self.jobs
                tell(f"{run.trial}: {said}", remains)

    def _expected(self, trials: Sequence[Trial]) -> dict[Trial, float]:
        by_name = {contest.name: contest for contest in self.contests}
        return {
            trial: seconds_of_a_run(self.probes[by_name[trial.contest].task.name], by_name[trial.contest], trial.rule)
            for trial in trials
        }

    def _keep(self, run: Running) -> tuple[str, float | None]:
        """Keep the record of a run that has ended, or why there is none; what is said of it, and seconds it took."""
        try:
            record = run.result()
        except UserError as error:
            self.failed[run.trial] = str(error)
            return f"failed: {error}", None
        keep(self.means.folder, run.trial, record)
        run.forget()
        score = next(each.score for each in self.contests if each.name == run.trial.contest)
        return said_of(record, score), float(record["wall_seconds"])


def cores() -> int:
    """Of the machine, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def said_of(record: Record, score: Score) -> str:
    """A record in a few words."""
    if record["diverged"]:
        return "diverged"
    parts = [f"{part} {score.shown(record[part])}" for part in ("validation", "test") if record[part] is not None]
    return f"{', '.join(parts)}, {record['wall_seconds']:.0f} s"
