"""A real Prometheus asks the real processes everything that panels, rules and runbooks ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve, encode, photo
from tests.deploy import live
from tests.deploy.drawing import draw
from tests.deploy.promql import (
    DASHBOARDS,
    metric_names,
    panel_queries,
    panels,
    rules,
    runbook_queries,
)

PICTURES = 6
# What has no answer in a healthy stack without a GPU, of an hour's age, and why.
SILENT = {
    "ALERTS": "no alert fires",
    "} == 0": "every process is scraped",
    "gamma_gpu_memory_bytes": "there is no CUDA device",
    "drift6h": "it compares with the day before",
    "offset 1d": "there is no day before",
}


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, small_model: Path
) -> Iterator[live.Prometheus]:
    """It has seen the service before and after a short load."""
    folder = tmp_path_factory.mktemp("prometheus")
    service = live.serve(folder, small_model, forked=True)
    running = None
    try:
        service.wait_until_ready()
        running = live.Prometheus(service, folder / "prometheus", interval="1s")
        running.wait_for(f"count(up == 1) == {len(live.PROCESSES)}")
        _load(service)
        running.wait_for(f'sum(gamma_jobs_total{{outcome="succeeded"}}) == {PICTURES}')
        running.wait_for('sum(gamma_http_rejections_total{reason="not_an_image"}) == 1')
        running.wait_for("min(count_over_time(up[1m])) >= 5 and count(gamma:jobs_failed:share5m)")
        running.wait_for("count(gamma:score:count6h)")
        yield running
    finally:
        if running is not None:
            running.stop()
        service.stop()


def _load(service: Serve) -> None:
    with service.client() as client:
        for seed in range(PICTURES):
            picture = {"file": encode(photo(96, 64, seed))}
            answer = client.post("/v1/detections", files=picture, headers={"Prefer": "wait=60"})
            assert answer.status_code == 200, answer.text
            assert client.get(answer.headers["Location"]).status_code == 200
        assert client.post("/v1/detections", files={"file": b"text"}).status_code == 415


def test_queries_of_panels_and_runbooks_return_data(prometheus: live.Prometheus) -> None:
    queries = {**panel_queries(), **runbook_queries()}
    silent = set()
    for where, query in queries.items():
        if not prometheus.query(query.replace("$__rate_interval", "1m")):
            reasons = {part for part in SILENT if part in query}
            assert reasons, f"{where} has no answer: {query}"
            silent |= reasons
    assert silent == set(SILENT)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_draw_what_there_is(prometheus: live.Prometheus, name: str, tmp_path: Path) -> None:
    """`DASHBOARDS=docs/images pytest …` keeps the pictures."""
    folder = Path(os.environ.get("DASHBOARDS", tmp_path))
    file = folder / f"dashboard-{name}.png"
    drawn = draw(prometheus, DASHBOARDS[name], file)
    for panel in panels(DASHBOARDS[name]):
        silent = any(part in str(panel["targets"]) for part in SILENT)
        assert drawn[panel["title"]] or silent, panel["title"]
    assert file.stat().st_size > 10_000


def test_rules_are_evaluated_and_find_their_series(prometheus: live.Prometheus) -> None:
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule
            assert rule.get("state", "inactive") != "firing", rule
    for name in {name for rule in rules() for name in metric_names(rule["expr"])}:
        if not any(part in name for part in SILENT):
            assert prometheus.query(f"count({name})"), name


def test_processes_are_scraped_within_sample_limit(prometheus: live.Prometheus) -> None:
    for target in prometheus.get("targets")["activeTargets"]:
        assert target["health"] == "up", target
        assert target["lastError"] == ""
    (most,) = prometheus.query("max(scrape_samples_scraped)")
    assert float(most["value"][1]) < 2500  # half of the limit
