"""A user's own folder `conf/`: choices of any group, beside those of the package."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from targetprop.app.overrides import CONF

NAME = "conf"
PACKAGE = Path(__file__).parents[1]


def folders() -> list[Path]:
    """Those that are searched: `conf/` beside the script that runs, and in the working directory."""
    script = Path(sys.argv[0]).resolve()
    beside = [script.parent] if script.suffix == ".py" and PACKAGE not in script.parents else []
    found = [each / NAME for each in (*beside, Path.cwd())]
    return [each for each in dict.fromkeys(found) if each.is_dir() and each != CONF]


class UserConf(SearchPathPlugin):
    """Has Hydra look for choices in a user's folders, behind those of the package: none of ours is replaced."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in folders():
            search_path.append(provider="user", path=f"file://{folder}")


def offer_user_conf() -> None:
    """Have every configuration that is composed from now on search a user's folders, too."""
    Plugins.instance().register(UserConf)
