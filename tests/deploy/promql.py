"""What is asked of Prometheus, and what there is to ask for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from tests.deploy.files import ROOT

RULES_FILE = ROOT / "deploy/prometheus/rules.yml"
RUNBOOKS = ROOT / "docs/runbooks"
DASHBOARDS = {
    file.stem: json.loads(file.read_text())
    for file in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
}
_NOT_METRICS = {"by", "without", "on", "ignoring", "and", "or", "unless", "bool", "offset"}
_NOT_METRICS |= {"group_left", "group_right"}
_SUFFIXES = {"counter": [""], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}


@dataclass(frozen=True)
class Documented:
    """A row of docs/metrics.md.

    Attributes:
        labels: name of each, and its values: listed, or what kind of thing they are.
    """

    name: str
    type: str
    unit: str
    labels: dict[str, frozenset[str] | str]
    process: str
    tells: str

    @property
    def samples(self) -> set[str]:
        return {self.name + end for end in _SUFFIXES[self.type]}


def documented() -> list[Documented]:
    """The table of docs/metrics.md."""
    lines = (ROOT / "docs/metrics.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return [
        Documented(name.strip("`"), kind, unit, _labels(labels.strip("| ")), *rest)
        for name, kind, unit, labels, *rest in (
            row if len(row) == 6 else [*row[:2], *_split_empty(row[2:])] for row in rows
        )
    ]


def _split_empty(cells: list[str]) -> list[str]:
    """`unit | | process | tells`: a row without labels."""
    unit, process, tells = cells
    return [unit, "", process.removeprefix("| "), tells]


def _labels(cell: str) -> dict[str, frozenset[str] | str]:
    labels: dict[str, frozenset[str] | str] = {}
    for part in filter(None, cell.split("; ")):
        name, values = part.split(": ", 1)
        listed = frozenset(re.findall(r"`([^`]+)`", values))
        labels[name.strip("`")] = listed or values.strip("*")
    return labels


def rules() -> list[dict[str, Any]]:
    """Every rule, recording or alerting."""
    groups = yaml.safe_load(RULES_FILE.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def panel_queries() -> dict[str, str]:
    """Where each query of a panel stands, and the query."""
    return {
        f"{name}: {panel['title']} {target['legendFormat']}": target["expr"]
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    }


def runbook_queries() -> dict[str, str]:
    return {
        f"{file.name}: {query}": query
        for file in sorted(RUNBOOKS.glob("*.md"))
        for block in re.findall(r"```promql\n(.*?)```", file.read_text(), re.DOTALL)
        for query in block.splitlines()
    }


def metric_names(expression: str) -> set[str]:
    """Names of the series in a PromQL expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", "", expression)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\boffset\s+\w+", "", bare)
    return set(re.findall(r"(?<![\w:.])[a-zA-Z_][\w:]*(?![\w:]*\s*\()", bare)) - _NOT_METRICS
