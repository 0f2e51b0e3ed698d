"""Build Grafana's dashboards from the questions they answer.

`python deploy/grafana/build.py` writes `dashboards/NAME.json` from each `questions/NAME.yml`. Edit
the questions, then run it; a test compares the two.

A panel has a title (the question), a help (how to read the answer, and what to do if it is red), a
Grafana unit, and queries, each under the legend of its series. `kind` is one of `KINDS` (default:
`lines`), `size` its width (of 24) and height. `steps` maps colours to the values at which they
begin; `most` is the end of the axis; `empty` is shown if there is no series; `scale: log` is for
values of different magnitude.

A panel links the dashboards that its help names. `--runbooks URL` also links the pages of
docs/runbooks/ that it names, where they are published.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import yaml

QUESTIONS = Path(__file__).parent / "questions"
DASHBOARDS = Path(__file__).parent / "dashboards"
COLUMNS = 24  # of Grafana's grid
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

_PLAIN = {"showPoints": "never", "spanNulls": False}
_LINES = {"fillOpacity": 8, "lineWidth": 2, **_PLAIN}
_AREAS = {"fillOpacity": 40, "lineWidth": 1, "stacking": {"mode": "normal"}, **_PLAIN}
_LEGEND = {
    "legend": {"displayMode": "list", "placement": "bottom"},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
_LAST_VALUE = {
    "colorMode": "background",
    "graphMode": "none",
    "reduceOptions": {"calcs": ["lastNotNull"]},
}
_BUCKETS = {
    "calculate": False,
    "color": {"mode": "scheme", "scheme": "Blues"},
    "tooltip": {"mode": "single"},
    "yAxis": {"min": "0", "max": "1"},
}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # kind: Grafana's type, options, `custom` of the fields, what each query has of its own
    "lines": ("timeseries", _LEGEND, _LINES, {"range": True}),
    "areas": ("timeseries", _LEGEND, _AREAS, {"range": True}),
    "number": ("stat", _LAST_VALUE, {}, {"instant": True}),
    "table": ("table", {"showHeader": True}, {}, {"instant": True, "format": "table"}),
    "heatmap": ("heatmap", _BUCKETS, {}, {"range": True, "format": "heatmap"}),
}


def dashboard(name: str, runbooks: str | None = None) -> dict[str, Any]:
    """Grafana's form of `questions/NAME.yml`."""
    source = yaml.safe_load((QUESTIONS / f"{name}.yml").read_text())
    panels: list[dict[str, Any]] = []
    y = 0
    for row in source["rows"]:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        panels.append({"type": "row", "title": row["title"], "gridPos": place, "panels": []})
        y, x, height = y + 1, 0, 0
        for question in row["panels"]:
            w, h = question.get("size", (8, 8))
            if x + w > COLUMNS:
                y, x, height = y + height, 0, 0
            panels.append(
                {**_panel(question, runbooks), "gridPos": {"h": h, "w": w, "x": x, "y": y}}
            )
            x, height = x + w, max(height, h)
        y += height
    return {
        "uid": f"gamma-{name}",
        "title": f"GAMMA: {source['title']}",
        "description": source["description"],
        "tags": ["gamma"],
        "editable": False,
        "graphTooltip": 1,  # one cross hair for all panels
        "refresh": "30s",
        "schemaVersion": 41,
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [_links()],
        "templating": {"list": [_datasource()]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
    }


def _panel(question: dict[str, Any], runbooks: str | None) -> dict[str, Any]:
    grafana_type, options, custom, ends = KINDS[question.get("kind", "lines")]
    defaults: dict[str, Any] = {"unit": question["unit"], "min": 0}
    if "most" in question:
        defaults["max"] = question["most"]
    if "empty" in question:
        defaults["noValue"] = question["empty"]
    if "steps" in question:
        steps = [{"color": color, "value": value} for color, value in question["steps"].items()]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if custom:
            custom = {**custom, "thresholdsStyle": {"mode": "line"}}
    if question.get("scale") == "log":
        scale = {"type": "symlog", "log": 10, "linearThreshold": 1}  # shows zero too
        custom = {**custom, "scaleDistribution": scale}
    if custom:
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = custom
    targets = [
        {
            "refId": reference,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": expression,
            "legendFormat": legend,
            **ends,
        }
        for reference, (legend, expression) in zip(
            "ABC"[: len(question["queries"])], question["queries"].items(), strict=True
        )
    ]
    return {
        "type": grafana_type,
        "title": question["title"],
        "description": question["help"],
        "links": _links_in(question["help"], runbooks),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    }


def _links_in(text: str, runbooks: str | None) -> list[dict[str, Any]]:
    """Links to what a help names."""
    found = [
        (
            f"the {name} dashboard",
            f"/d/gamma-{name}?${{__url_time_range}}&${{datasource:queryparam}}",
        )
        for name in re.findall(r"(\w+) dashboard", text)
        if (QUESTIONS / f"{name}.yml").exists()
    ]
    if runbooks is not None:
        pages = dict.fromkeys(re.findall(r"docs/runbooks/([a-z-]+)\.md", text))
        found += [(f"runbook: {page}", f"{runbooks}/{page}.md") for page in pages]
    return [{"title": title, "url": url} for title, url in found]


def _links() -> dict[str, Any]:
    """From each dashboard to the others."""
    return {
        "type": "dashboards",
        "title": "GAMMA",
        "tags": ["gamma"],
        "asDropdown": False,
        "keepTime": True,
        "includeVars": True,
    }


def _datasource() -> dict[str, Any]:
    """The variable by which one may look at another Prometheus."""
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": "prometheus"},
    }


def names() -> list[str]:
    """The dashboards there are."""
    return sorted(file.stem for file in QUESTIONS.glob("*.yml"))


def render(name: str, runbooks: str | None = None) -> str:
    """The text of `dashboards/NAME.json`."""
    return json.dumps(dashboard(name, runbooks), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build Grafana's dashboards.")
    parser.add_argument("--runbooks", metavar="URL", help="where docs/runbooks/ is published")
    base = parser.parse_args().runbooks
    for each in names():
        (DASHBOARDS / f"{each}.json").write_text(render(each, base and base.rstrip("/")))
