"""Prometheus scrapes what runs, and the dashboard asks for what is exposed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import require_program
from tests.deploy.files import ROOT, compose, dashboard, lineage, provisioning, scrape_jobs

# Run in a process of its own, so that each registry holds the metrics of one process only.
EXPOSED = """
import importlib, json, sys
from prometheus_client import REGISTRY

class Nothing:
    depth = oldest_age = lambda self: 0
    live_workers = lambda self: []

module = importlib.import_module(sys.argv[1])
families = list(REGISTRY.collect())
if hasattr(module, "_Backlog"):
    families += module._Backlog(Nothing(), Nothing()).collect()
print(json.dumps([(family.name, family.type) for family in families]))
"""
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
NOT_METRICS = {"by", "without", "on", "ignoring", "and", "or", "unless", "bool", "offset"}


@pytest.fixture
def promtool() -> str:
    return require_program("promtool")


@cache
def exposed(module: str) -> frozenset[str]:
    """Names of the samples that a process exposes."""
    done = subprocess.run(
        [sys.executable, "-c", EXPOSED, module],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    families = json.loads(done.stdout)
    return frozenset(name + end for name, kind in families for end in SUFFIXES.get(kind, ()))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def metric_names(expression: str) -> set[str]:
    """Names of the series in a PromQL expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b(?!\s*\()", bare)) - NOT_METRICS


def test_prometheus_accepts_its_configuration(promtool: str) -> None:
    subprocess.run(
        [promtool, "check", "config", ROOT / "deploy/prometheus/prometheus.yml"], check=True
    )


def test_prometheus_finds_every_process_of_ours_by_name() -> None:
    names = {
        name: {name, *(service["networks"].get("metrics") or {}).get("aliases", ())}
        if isinstance(service["networks"], dict)
        else {name}
        for name, service in compose()["services"].items()
        if "build" in service
    }
    (api,) = scrape_jobs()["gamma-api"]["dns_sd_configs"]
    (worker,) = scrape_jobs()["gamma-worker"]["dns_sd_configs"]
    assert set(api["names"]) <= names["api"]
    for service in ("worker", "worker-gpu"):
        assert set(worker["names"]) <= names[service]
    for target, found in {"api": api, "worker": worker}.items():
        environment = {k: v for stage in lineage(target) for k, v in stage.environment().items()}
        assert found["port"] == int(environment["GAMMA_METRICS_PORT"])


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    (source,) = provisioning("datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert source["editable"] is False
    (provider,) = provisioning("dashboards/gamma.yml")["providers"]
    assert provider["allowUiUpdates"] is False
    mounts = [volume.split(":")[:2] for volume in compose()["services"]["grafana"]["volumes"]]
    assert ["./deploy/grafana/dashboards", provider["options"]["path"]] in mounts
    assert ["./deploy/grafana/provisioning", "/etc/grafana/provisioning"] in mounts
    (variable,) = dashboard()["templating"]["list"]
    assert variable["current"]["value"] == source["uid"]


def test_the_home_page_of_grafana_is_the_overview() -> None:
    environment = compose()["services"]["grafana"]["environment"]
    path = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert path == "/etc/grafana/dashboards/overview.json"


def test_the_dashboard_keeps_its_address() -> None:
    assert dashboard()["uid"] == "gamma-overview"
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_answers_a_question_and_says_what_to_do(panel: dict[str, Any]) -> None:
    assert panel["title"].endswith("?")
    assert len(panel["description"]) > 60
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for source in [panel, *panel["targets"]]:
        assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_query_names_metrics_that_exist() -> None:
    known = exposed("app.metrics") | exposed("worker.metrics")
    asked = {name for expression in expressions() for name in metric_names(expression)}
    assert asked
    assert asked <= known, sorted(asked - known)


def test_names_are_found_in_any_expression() -> None:
    expression = (
        'sum by (le, a) (rate(x_bucket{b="up"}[5m])) / on (c) (y > 0) or vector(0) and time() - z'
    )
    assert metric_names(expression) == {"x_bucket", "y", "z"}


def test_every_query_is_promql(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", file], check=True)
