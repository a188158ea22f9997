"""A configuration as a tree."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf
from rich.syntax import Syntax
from rich.tree import Tree


def config_tree(config: DictConfig, groups: Sequence[str]) -> Tree:
    """The resolved configuration: one branch for each of `groups`, then the other keys."""
    tree = Tree("configuration", guide_style="dim")
    others = {}
    for key in [*groups, *(str(key) for key in config if key not in groups)]:
        value = config.get(key)
        if isinstance(value, DictConfig):
            text = OmegaConf.to_yaml(value, resolve=True).rstrip()
            tree.add(key).add(Syntax(text, "yaml", theme="ansi_dark", background_color="default"))
        else:
            others[key] = value
    for key, value in others.items():
        tree.add(f"{key}: {value}")
    return tree
