"""How pictures of published experiments look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from targetprop.published.experiment import Rows, Value, grouped, mean_and_spread

WIDTH = 0.8
"""Of all bars of a group, in groups."""


def panels(count: int, titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side, each with its title."""
    figure = Figure(figsize=(max(6.4, 4.6 * count), 3.8), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for each, title in zip(axes, titles, strict=True):
        each.set_title(title, fontsize="medium")
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", alpha=0.25)
        each.set_axisbelow(True)
    return figure, axes


def bars(axes: Axes, rows: Rows, value: str, group: str, colour: str, label: str) -> None:
    """A bar for each group and colour: the mean of a column, with its standard deviation over the rows."""
    found = grouped(rows, value, group, colour)
    groups, colours = _each(key[0] for key in found), _each(key[1] for key in found)
    for place, name in enumerate(colours):
        drawn = [(at, mean_and_spread(found[each, name])) for at, each in enumerate(groups) if (each, name) in found]
        width = WIDTH / len(colours)
        x = [at - WIDTH / 2 + (place + 0.5) * width for at, _ in drawn]
        heights, errors = [mean for _, (mean, _) in drawn], [sd for _, (_, sd) in drawn]
        axes.bar(x, heights, width, yerr=errors, label=str(name), capsize=2, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(groups)), [str(each) for each in groups], rotation=25, ha="right", fontsize="small")
    axes.set_ylabel(label)


def accuracies(rows: Rows, key: str) -> Figure:
    """Test accuracies of rules, ours beside the published ones: a panel for each value of this key."""
    titles = list(dict.fromkeys(str(row[key]) for row in rows))
    figure, axes = panels(len(titles), titles)
    for title, each in zip(titles, axes, strict=True):
        shown = [row for row in rows if str(row[key]) == title]
        both = [row | {"accuracy": row["test"], "from": "here"} for row in shown]
        both += [row | {"accuracy": row["published"], "from": "published"} for row in shown]
        bars(each, both, "accuracy", "rule", "from", "test accuracy (%)")
    legend(figure, axes[0])
    return figure


def lines(axes: Axes, rows: Rows, value: str, x: str, colour: str, labels: tuple[str, str]) -> None:
    """A line for each colour: the mean of a column at every x, within a band of its standard deviation."""
    found = grouped(rows, value, colour, x)
    for name in _each(key[0] for key in found):
        points = {float(str(key[1])): mean_and_spread(values) for key, values in found.items() if key[0] == name}
        means, spreads = [mean for mean, _ in points.values()], [spread for _, spread in points.values()]
        (line,) = axes.plot(list(points), means, label=str(name), linewidth=1.2)
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(list(points), low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])


def legend(figure: Figure, axes: Axes) -> None:
    """What the colours mean, of a panel that stands for all, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels) or 1), fontsize="small")


def _each(values: Iterable[Value]) -> list[Value]:
    """Each once, in order."""
    return list(dict.fromkeys(values))
