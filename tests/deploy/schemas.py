"""The published schemas of Kubernetes, KEDA and the Prometheus operator.

Import it within functions: it takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import kubernetes_validate
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule
from pydantic import BaseModel, ValidationError

from tests.deploy.manifests import Object

OLDEST = "1.30"
"""The oldest version of Kubernetes that knows all we use."""
_CURRENT = "1.37"
_CUSTOM: Mapping[str, type[BaseModel]] = {
    model.__name__: model for model in (PodMonitor, PrometheusRule, ScaledObject)
}


def problem(manifest: Object, versions: Iterable[str] = (OLDEST, _CURRENT)) -> str | None:
    """What the schemas say against a manifest; an unknown field is a problem."""
    try:
        if model := _CUSTOM.get(manifest["kind"]):
            model.model_validate(manifest, extra="forbid")
        else:
            for version in versions:
                kubernetes_validate.validate(manifest, version, strict=True)
    except (ValidationError, kubernetes_validate.ValidationError) as error:
        return str(error)
    return None
