"""The Kubernetes manifests, as an overlay builds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.deploy.files import kubernetes

OVERLAYS = ("cpu", "gpu")
PROGRAMS = ("api", "webhooks", "worker")
PODS = (*PROGRAMS, "redis")

Object = dict[str, Any]

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def objects(overlay: str, kind: str) -> dict[str, Object]:
    return {o["metadata"]["name"]: o for o in kubernetes(overlay) if o["kind"] == kind}


def workloads(overlay: str) -> dict[str, Object]:
    return objects(overlay, "Deployment") | objects(overlay, "StatefulSet")


def pod(overlay: str, name: str) -> Object:
    """Labels and specification of the pods of a workload."""
    return workloads(overlay)[name]["spec"]["template"]


def container(overlay: str, name: str) -> Object:
    (found,) = pod(overlay, name)["spec"]["containers"]
    return found


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector means an object with these labels."""
    expressions = selector.get("matchExpressions", ())
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )
