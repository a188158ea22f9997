"""Wheel and sdist, installed in environments of their own, do what the repository does."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("build") or not find_spec("hatchling"), reason='needs the extra "dev"'),
]
QUICK = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.threads=1",
    "model.hparams.feedback_training_iterations=1",
]


def call(*command: str, cwd: Path) -> str:
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both kinds of package, the wheel made from the sdist, as for a release."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    return folder


@pytest.fixture(params=["*.whl", "*.tar.gz"])
def installed(request: pytest.FixtureRequest, built: Path, tmp_path: Path) -> Path:
    """The folder of an environment with the package of that kind, and of ours only what it depends on."""
    (package,) = built.glob(request.param)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    site = call(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    # By a path file, whose folders' own path files are not read: an editable install of ours does not count.
    Path(site, "dependencies.pth").write_text("\n".join(_ours()))
    no = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q")
    call(str(python), "-m", "pip", "install", *no, "--force-reinstall", str(package), cwd=tmp_path)
    return tmp_path / "env"


def _ours() -> list[str]:
    """Folders of installed packages of this interpreter."""
    return list(dict.fromkeys([sysconfig.get_path("purelib"), *(each for each in sys.path if "site-packages" in each)]))


def test_the_installed_package_trains_predicts_exports_and_searches(installed: Path, tmp_path: Path) -> None:
    python, command = installed / "bin/python", installed / "bin/targetprop"
    where = "import targetprop; print(targetprop.__file__)"
    assert call(str(python), "-c", where, cwd=tmp_path).startswith(str(installed))
    assert "simple_vgg" in call(str(command), "--help", cwd=tmp_path)
    call(str(command), *QUICK, "hydra.run.dir=run", cwd=tmp_path)
    evaluated = json.loads(call(str(command), "evaluate", "run", "--checkpoint", "last", "--json", cwd=tmp_path))
    assert set(evaluated) == {"validation", "test"}
    call(str(command), "export", "run", "--to", "state_dict", cwd=tmp_path)
    assert (tmp_path / "run/network.pt").is_file()
    if find_spec("optuna"):
        search = ("hparams_search=dtp", "hydra.sweeper.n_trials=1", "hydra.sweep.dir=search")
        call(str(command), *search, *QUICK, cwd=tmp_path)
        assert (tmp_path / "search/search.png").is_file()


def test_the_sdist_has_what_its_tests_need_and_nothing_of_a_users(built: Path) -> None:
    (package,) = built.glob("*.tar.gz")
    with tarfile.open(package) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "targetprop/data/digits.npz", "targetprop/data/digits.txt", "hydra_plugins/targetprop_search.py",
        "tests/conftest.py", "tools/release.py", "plans/digits.yaml", "main.py",
        "CITATION.cff", "CHANGELOG.md", "LICENSE", "pyproject.toml",
    ):  # fmt: skip
        assert needed in names
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"runs", "data", "dist", ".venv", ".git"}
