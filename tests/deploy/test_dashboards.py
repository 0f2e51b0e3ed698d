"""The dashboards ask for what there is, in PromQL, and say what to do about the answer."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.conftest import require_program
from tests.deploy.files import ROOT
from tests.deploy.promql import (
    DASHBOARDS,
    documented,
    metric_names,
    panel_queries,
    panels,
    rules,
    runbook_queries,
)

UNITS = {
    *("short", "none", "s", "bytes", "percentunit", "reqps", "ops"),
    "bool_yes_no",
}
PANELS = [(name, panel) for name, found in DASHBOARDS.items() for panel in panels(found)]
each_panel = pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS], ids=[f"{name}: {p['title']}" for name, p in PANELS]
)
each_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", ROOT / "deploy/grafana/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dashboard_files_are_up_to_date(builder: ModuleType) -> None:
    assert builder.names() == list(DASHBOARDS) == ["overview", "redis", "results", "workers"]
    for name in DASHBOARDS:
        written = (ROOT / f"deploy/grafana/dashboards/{name}.json").read_text()
        assert written == builder.render(name), "run python deploy/grafana/build.py"


@each_dashboard
def test_dashboard_uid_is_stable(name: str) -> None:
    found = DASHBOARDS[name]
    assert found["uid"] == f"gamma-{name}"
    assert found["editable"] is False
    assert found["tags"] == ["gamma"]
    assert found["links"][0]["tags"] == found["tags"]
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))


@each_dashboard
def test_dashboard_uses_selected_data_source(name: str) -> None:
    (variable,) = DASHBOARDS[name]["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    for panel in panels(DASHBOARDS[name]):
        for source in [panel, *panel["targets"]]:
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_dashboard
def test_panels_fill_the_grid_and_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@each_panel
def test_panel_links_the_dashboards_it_names(panel: dict[str, Any]) -> None:
    named = set(re.findall(r"(\w+) dashboard", panel["description"])) & set(DASHBOARDS)
    linked = {link["url"].partition("?")[0] for link in panel["links"]}
    assert linked == {f"/d/{DASHBOARDS[name]['uid']}" for name in named}


def test_panels_link_runbooks_where_they_are_published(builder: ModuleType) -> None:
    for name, shown in DASHBOARDS.items():
        built = builder.dashboard(name, "https://ops.example/runbooks")
        for panel, plain in zip(panels(built), panels(shown), strict=True):
            pages = re.findall(r"docs/runbooks/(\S+?\.md)", panel["description"])
            urls = [f"https://ops.example/runbooks/{page}" for page in dict.fromkeys(pages)]
            added = [link["url"] for link in panel["links"] if link not in plain["links"]]
            assert added == urls


def test_a_long_and_a_short_queue_are_readable_together() -> None:
    (panel,) = [panel for _, panel in PANELS if panel["title"] == "How many uploads wait?"]
    scale = panel["fieldConfig"]["defaults"]["custom"]["scaleDistribution"]
    assert scale["type"] == "symlog"  # logarithmic, and shows zero


@each_panel
def test_panels_have_question_and_advice(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["title"].endswith("?")
    assert defaults["unit"] in UNITS
    assert len(panel["description"]) > 80
    assert panel["targets"]
    for page in re.findall(r"docs/runbooks/\S+?\.md", panel["description"]):
        assert (ROOT / page).is_file(), page
    colours = [step["color"] for step in defaults.get("thresholds", {"steps": []})["steps"]]
    if "red" in colours:
        assert "Red" in panel["description"]


def test_titles_are_unique() -> None:
    titles = [panel["title"] for _, panel in PANELS]
    assert len(titles) == len(set(titles))


def test_queries_use_documented_metrics() -> None:
    known = {sample for row in documented() for sample in row.samples}
    known |= {rule["record"] for rule in rules() if "record" in rule} | {"ALERTS", "up"}
    queries = panel_queries() | runbook_queries() | {str(rule): rule["expr"] for rule in rules()}
    for where, query in queries.items():
        asked = metric_names(query)
        assert asked, where
        assert asked <= known, (where, sorted(asked - known))


def test_metric_names_are_extracted() -> None:
    expression = (
        'sum by (le, a) (rate(x_bucket{b="up"}[5m] offset 1d)) / on (c) group_left (y:z > 1e3) '
        "or vector(0) and time() - w"
    )
    assert metric_names(expression) == {"x_bucket", "y:z", "w"}


def test_queries_are_valid_promql(tmp_path: Path) -> None:
    queries = {**panel_queries(), **runbook_queries()}.values()
    listed = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": listed}]}))
    subprocess.run([require_program("promtool"), "check", "rules", file], check=True)
