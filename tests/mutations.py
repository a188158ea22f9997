"""Twenty defects of one line, each of which a named test has to notice: `python -m tests.mutations [WORD ...]`.

Each is put into a copy of the package, in which its test alone is run, and has to fail; without the defect it has to
pass. With words, only the defects whose file or test has one of them are tried. The exit code is 1 if one is missed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("targetprop", "hydra_plugins", "tests", "docs", "tools", "benchmarks", "plans", "examples")
FILES = ("pyproject.toml", "README.md", "main.py", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md")
NO_TESTS = 5
"""Exit code of pytest where there is no such test."""


class Mutation(NamedTuple):
    """A defect.

    Attributes:
        file: where it is put.
        old: part of a line, which occurs once.
        new: what stands there instead.
        test: what notices it: file::function, and [case] where it has some.
    """

    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation("targetprop/targets/base.py", "return -beta * gradient", "return beta * gradient",
             "tests/test_rules.py::test_output_target_steps_down_the_gradient"),
    Mutation("targetprop/targets/layerwise.py", "return pair.decode(trace.y + difference, trace.context) - trace.x",
             "return pair.decode(trace.y, trace.context) - trace.x", "tests/test_rules.py::test_targets_by_hand"),
    Mutation("targetprop/feedback/losses.py", "- 2 * (eps * response).sum()", "- (eps * response).sum()",
             "tests/test_rules.py::test_l_drl_by_hand"),
    Mutation("targetprop/feedback/losses.py", "pair.decode(noisy, noisy_context) - clean",
             "pair.decode(noisy, trace.context) - clean",
             "tests/test_rules.py::test_noisy_pass_is_decoded_with_its_own_pooling_indices"),
    Mutation("targetprop/feedback/losses.py", "(pair.decode(noisy, context) - noisy_input).square()",
             "(pair.decode(noisy, context) - trace.x).square()", "tests/test_rules.py::test_reconstruction_by_hand"),
    Mutation("targetprop/noise.py", "_hash(self.seed, *key, number)", "_hash(0, *key, number)",
             "tests/test_noise.py::test_another_seed_gives_an_unrelated_draw"),
    Mutation("targetprop/noise.py", "slice(max(start, first), min(end, first + count))",
             "slice(max(start, 0), min(end, first + count))",
             "tests/test_noise.py::test_parts_of_a_batch_get_slices_of_its_noise"),
    Mutation("targetprop/network/blocks.py", "while _reshapes(", "while not _reshapes(",
             "tests/test_network.py::test_leading_trailing_and_reshaping_layers"),
    Mutation("targetprop/data/augment.py", ".div_(255)", ".div_(256)",
             "tests/data/test_augment.py::test_normalize_by_hand"),
    Mutation("targetprop/data/split.py", "held = rank < _quotas", "held = rank <= _quotas",
             "tests/data/test_split.py::test_split_is_a_partition_with_every_class_at_its_share"),
    Mutation("targetprop/data/digits.py", "TEST_COUNT = 360", "TEST_COUNT = 359",
             "tests/data/test_digits.py::test_digits_are_whole_and_split_the_same_every_time"),
    Mutation("targetprop/utils/files.py", 'path.with_name(f".{path.name}.partial")', "path",
             "tests/test_files.py::test_a_file_that_fails_leaves_the_one_before_it"),
    Mutation("targetprop/app/checkpoint/files.py", "written != MARK + _digest(path, size)", "False",
             "tests/app/test_checkpoint_files.py::test_every_flipped_bit_is_noticed"),
    Mutation("targetprop/app/described.py", "torch.tensor(self.mean), torch.tensor(self.std)",
             "torch.tensor(self.std), torch.tensor(self.mean)",
             "tests/app/test_saved.py::test_predictions_are_as_good_as_the_run_says"),
    Mutation("targetprop/app/saved/export.py", "node.meta.pop(key, None)", "pass",
             "tests/app/test_saved.py::test_exported_files_have_no_trace_of_us_and_open_without_us[whitened]"),
    Mutation("targetprop/app/provenance.py", ' and changes" if changed', ' and changes" if not changed',
             "tests/app/test_provenance.py::test_commits_are_those_of_the_package_and_of_the_working_directory"),
    Mutation("targetprop/app/user_conf.py", "search_path.append(", "search_path.prepend(",
             "tests/test_your_own_page.py::test_a_folder_adds_choices_and_replaces_none"),
    Mutation("targetprop/app/search/study.py", "seed=seed + len(study.trials)", "seed=seed",
             "tests/test_search.py::test_a_search_goes_on_and_tries_nothing_twice"),
    Mutation("targetprop/app/callbacks/prune.py", 'if mode == "max" else -1.0', 'if mode == "max" else 1.0',
             "tests/test_search.py::test_a_trial_worse_than_the_others_is_ended_early_and_told_as_such[min--1]"),
    Mutation("tools/release.py", 'if f"v{version}" not in tags:', "if not tags:",
             "tests/test_release.py::test_whatever_disagrees_is_named"),
)  # fmt: skip


def main(words: Sequence[str] = ()) -> int:
    """Try the defects; returns how many were missed."""
    chosen = [each for each in MUTATIONS if not words or any(word in each.file + each.test for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder, "tree"))
        for number, each in enumerate(chosen, start=1):
            verdict = try_out(tree, each)
            missed += verdict != "caught"
            print(f"{number:2} of {len(chosen)}  {verdict:8}  {each.file}: {each.old}  ->  {each.new}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return missed


def copied(tree: Path) -> Path:
    """What tests need, copied there."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy2(ROOT / name, tree / name)
    for name in (".github", ".pre-commit-config.yaml"):
        if (ROOT / name).exists():
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tree / name)
    return tree


def try_out(tree: Path, mutation: Mutation) -> str:
    """Whether the test passes as it is, and fails with the defect: "caught", "missed", or what is wrong with it."""
    path = tree / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        return "no such line" if mutation.old not in text else "several lines"
    if (code := tested(tree, mutation.test)) != 0:
        return "no test" if code == NO_TESTS else "fails without it"
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        return "missed" if tested(tree, mutation.test) == 0 else "caught"
    finally:
        path.write_text(text)


def tested(tree: Path, test: str) -> int:
    """Exit code of one test in a tree."""
    free = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    call = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "", test]
    return subprocess.run(call, cwd=tree, env=free, capture_output=True).returncode


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
