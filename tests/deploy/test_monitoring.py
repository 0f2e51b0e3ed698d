"""Prometheus finds what runs, and Grafana finds Prometheus and the dashboards."""

from __future__ import annotations

import subprocess

from tests.conftest import require_program
from tests.deploy.files import ROOT, compose, lineage, provisioning, scrape_jobs
from tests.deploy.promql import DASHBOARDS

# Scrape job: the Compose services it has to find, and their image's target.
FOUND = {
    "gamma-api": (["api"], "api"),
    "gamma-worker": (["worker", "worker-gpu"], "worker"),
    "gamma-webhooks": (["webhooks"], "api"),
}


def test_prometheus_accepts_its_configuration() -> None:
    subprocess.run(
        [require_program("promtool"), "check", "config", ROOT / "deploy/prometheus/prometheus.yml"],
        check=True,
    )


def test_prometheus_discovers_all_processes() -> None:
    services = compose()["services"]
    assert {name for names, _ in FOUND.values() for name in names} == {
        name for name, service in services.items() if "build" in service
    }
    for job, (names, target) in FOUND.items():
        (found,) = scrape_jobs()[job]["dns_sd_configs"]
        for name in names:
            networks = services[name]["networks"]
            aliases = [
                alias
                for network in networks
                if isinstance(networks, dict)
                for alias in (networks[network] or {}).get("aliases", [])
            ]
            assert set(found["names"]) <= {name, *aliases}, name
        environment = {k: v for stage in lineage(target) for k, v in stage.environment().items()}
        assert found["port"] == int(environment["GAMMA_METRICS_PORT"])


def test_prometheus_limits_samples_of_all_processes() -> None:
    assert all(scrape_jobs()[job]["sample_limit"] == 5000 for job in FOUND)


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    (source,) = provisioning("datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert source["editable"] is False
    (provider,) = provisioning("dashboards/gamma.yml")["providers"]
    assert provider["allowUiUpdates"] is False
    mounts = [volume.split(":")[:2] for volume in compose()["services"]["grafana"]["volumes"]]
    assert ["./deploy/grafana/dashboards", provider["options"]["path"]] in mounts
    assert ["./deploy/grafana/provisioning", "/etc/grafana/provisioning"] in mounts
    for found in DASHBOARDS.values():
        assert found["templating"]["list"][0]["current"]["value"] == source["uid"]


def test_grafana_home_is_the_overview() -> None:
    environment = compose()["services"]["grafana"]["environment"]
    path = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert path == "/etc/grafana/dashboards/overview.json"
