"""The whole service with webhooks, and what its ports say."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Serve, free_port, require_program
from tests.deploy.files import ROOT

PROCESSES = ("api", "worker", "webhooks")
"""In the order of their metrics ports under `gamma serve`."""

_TIMEOUT = 60  # s
_SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def serve(folder: Path, model: Path, *, forked: bool) -> Serve:
    """A `gamma serve` with this network, on the CPU, with webhooks."""
    return Serve(
        folder / "data",
        *("--checkpoint", str(model), "--device", "cpu"),
        forked=forked,
        GAMMA_WEBHOOK_SECRETS=_SECRET,
    )


def metrics_port(service: Serve, process: str) -> int:
    return service.metrics_port + PROCESSES.index(process)


def scrape(service: Serve, process: str) -> list[Metric]:
    """What a process exposes."""
    url = f"http://127.0.0.1:{metrics_port(service, process)}/metrics"
    return list(text_string_to_metric_families(httpx2.get(url, timeout=30).text))


class Prometheus:
    """A real Prometheus with the shipped configuration and rules.

    But it finds processes by port, and asks and evaluates all of them every `interval`.
    """

    def __init__(self, service: Serve, folder: Path, interval: str) -> None:
        folder.mkdir(parents=True)
        config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
        config["global"]["scrape_timeout"] = interval
        rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
        for group in rules["groups"]:
            group.pop("interval", None)
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        ours = {job["job_name"]: job for job in config["scrape_configs"]}
        for process in PROCESSES:
            job = ours[f"gamma-{process}"]
            del job["dns_sd_configs"]
            job["static_configs"] = [{"targets": [f"127.0.0.1:{metrics_port(service, process)}"]}]
        config["scrape_configs"] = [ours[f"gamma-{process}"] for process in PROCESSES]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{free_port()}"
        self._client = httpx2.Client(base_url=f"{self.url}/api/v1", timeout=30)
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                require_program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def get(self, path: str, **parameters: str) -> Any:
        """Data of an answer of its API; raises if it is an error."""
        answer = self._client.get(path, params=parameters).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an answer; a scalar is one."""
        data = self.get("query", query=expression)
        return data["result"] if data["resultType"] == "vector" else [data["result"]]

    def wait_for(self, expression: str) -> None:
        """Wait until an expression has an answer."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            assert self._process.poll() is None
            with contextlib.suppress(httpx2.TransportError, json.JSONDecodeError):
                if self.query(expression):
                    return
            assert time.monotonic() < deadline, expression
            time.sleep(0.2)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._client.close()
        self._log.close()
