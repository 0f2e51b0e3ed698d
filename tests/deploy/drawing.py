"""Draws the panels of a dashboard as one picture, from what a real Prometheus answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.deploy.live import Prometheus
from tests.deploy.promql import panels

_COLUMNS = 24  # of Grafana's grid
_WINDOW = 120  # s


def draw(prometheus: Prometheus, dashboard: dict[str, Any], file: Path) -> dict[str, int]:
    """Draw a dashboard of the last two minutes.

    Returns:
        The number of series of each panel, by its title.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    shown = panels(dashboard)
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown)
    figure = pyplot.figure(figsize=(_COLUMNS * 0.7, rows * 0.45), dpi=60)
    grid = figure.add_gridspec(rows, _COLUMNS, hspace=6, wspace=4)
    counts = {}
    for panel in shown:
        place = panel["gridPos"]
        axes = figure.add_subplot(
            grid[place["y"] : place["y"] + place["h"] - 1, place["x"] : place["x"] + place["w"]]
        )
        axes.set_title(panel["title"], fontsize=8, loc="left")
        axes.tick_params(labelsize=6)
        defaults = panel["fieldConfig"]["defaults"]
        if defaults.get("custom", {}).get("scaleDistribution", {}).get("type") == "symlog":
            axes.set_yscale("symlog", linthresh=1)
        counts[panel["title"]] = sum(
            _draw_series(prometheus, axes, target) for target in panel["targets"]
        )
        if not counts[panel["title"]]:
            axes.text(0.5, 0.5, defaults.get("noValue", "no data"), ha="center", fontsize=8)
        axes.set_ylim(bottom=0, top=defaults.get("max"))
    figure.savefig(file, bbox_inches="tight")
    pyplot.close(figure)
    return counts


def _draw_series(prometheus: Prometheus, axes: Any, target: dict[str, Any]) -> int:
    """Draw the series of a query; returns their number."""
    now = time.time()
    data = prometheus.get(
        "query_range",
        query=target["expr"].replace("$__rate_interval", "1m"),
        start=str(now - _WINDOW),
        end=str(now),
        step="2",
    )
    for series in data["result"]:
        times = [float(at) - now for at, _ in series["values"]]
        axes.plot(times, [float(value) for _, value in series["values"]])
    return len(data["result"])
