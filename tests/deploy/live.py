"""The whole service, quick: a small network, workers, webhooks, and what their ports say."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx2
import torch
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from model.config import GammaConfig
from model.network import GammaModel
from tests.conftest import Serve

PROCESSES = ("api", "worker", "webhooks")
"""In the order of their metrics ports under `gamma serve`."""

_SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def small_checkpoint(folder: Path) -> Path:
    """A network that computes a 64-pixel crop in milliseconds."""
    torch.manual_seed(0)
    config = GammaConfig(
        backbone="mit_b0", decoder_channels=32, output_channels=24, crop_size=64, version="small"
    )
    GammaModel(config).save_pretrained(folder)
    return folder


def serve(folder: Path) -> Serve:
    """A `gamma serve` with that network, on the CPU, with webhooks."""
    return Serve(
        folder / "data",
        *("--checkpoint", str(small_checkpoint(folder / "model")), "--device", "cpu"),
        GAMMA_WEBHOOK_SECRETS=_SECRET,
    )


def metrics_port(service: Serve, process: str) -> int:
    return service.metrics_port + PROCESSES.index(process)


def scrape(service: Serve, process: str) -> list[Metric]:
    """What a process exposes."""
    url = f"http://127.0.0.1:{metrics_port(service, process)}/metrics"
    return list(text_string_to_metric_families(httpx2.get(url, timeout=30).text))
