"""The Helm chart: every choice renders, and its defaults are the manifests of the overlays."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from allpairspy import AllPairs

from app.command.spans import wanted as exports_spans
from app.contract.settings import Settings
from tests.conftest import require_program
from tests.deploy.files import ROOT, VERSION, build, kubernetes
from tests.deploy.manifests import PROGRAMS, Object

CHART = ROOT / "deploy/helm/gamma"
PEER = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]

CHOICES: dict[str, dict[str, Object]] = {
    "device": {
        "cpu": {},
        "gpu": {"worker": {"device": "gpu"}},
        "slice": {"worker": {"device": "gpu", "gpuResource": "nvidia.com/mig-1g.10gb"}},
    },
    "redis": {
        "inside": {},
        "tls": {"redis": {"mode": "external", "egress": {"to": PEER}, "tlsSecret": "redis-tls"}},
        "sentinel": {"redis": {"mode": "sentinel", "egress": {"to": PEER}}},
    },
    "backup": {
        "none": {},
        "hourly": {"backup": {"enabled": True}},
        "restore": {"backup": {"restore": "redis-1.rdb", "storage": {"existingClaim": "old"}}},
    },
    "store": {
        "redis": {},
        "role": {"store": {"url": "s3://bucket/prefix"}, "serviceAccountName": "gamma"},
        "keys": {
            "store": {
                "url": "s3://bucket",
                "endpoint": "https://minio.example",
                "region": "eu-central-1",
                "credentialsSecret": "aws",
                "caSecret": "minio-ca",
                "egress": {"to": PEER, "ports": [9000]},
            }
        },
    },
    "checkpoint": {
        "builtin": {},
        "pvc": {"checkpoint": {"source": "pvc", "claim": "models", "path": "own"}},
        "image": {"checkpoint": {"source": "image", "image": "registry/own:1.0.0", "path": "own"}},
        "hub": {"checkpoint": {"source": "hub", "name": "house/own", "tokenSecret": "hub"}},
    },
    "scaling": {
        "keda": {},
        "to zero": {"worker": {"replicas": {"min": 0, "max": 4}}},
        "fixed": {"keda": {"enabled": False}, "api": {"replicas": {"min": 3, "max": 3}}},
    },
    "monitoring": {
        "operator": {},
        "labels": {"monitoring": {"labels": {"release": "stack"}, "dashboards": True}},
        "none": {"monitoring": {"enabled": False}},
    },
    "secret": {"exists": {}, "created": {"secret": {"values": {"gamma_redis_url": "redis://x"}}}},
    "priority": {
        "none": {},
        "created": {"priorityClasses": {"create": True}},
        "named": {"priorityClasses": {"service": "high", "worker": "low"}},
    },
    "policies": {"on": {}, "off": {"networkPolicies": {"enabled": False}}},
    "database": {
        "none": {},
        "postgresql": {"database": {"enabled": True, "egress": {"to": PEER}}},
    },
    "traces": {
        "none": {},
        "exported": {
            "traces": {"endpoint": "http://collector.observability:4318", "egress": {"to": PEER}}
        },
    },
    "rest": {
        "none": {},
        "set": {
            "settings": {"GAMMA_STOP_TIMEOUT": 300, "GAMMA_CACHE": False},
            "imagePullSecrets": [{"name": "registry"}],
            "images": {"api": {"repository": "registry/api", "digest": f"sha256:{'0' * 64}"}},
            "worker": {"nodeSelector": {"pool": "gpu"}, "tolerations": [{"operator": "Exists"}]},
        },
    },
}


def merged(one: Object, other: Object) -> Object:
    """`one` with the values of `other`, dictionaries merged."""
    result = dict(one)
    for name, value in other.items():
        known = result.get(name)
        both = isinstance(value, dict) and isinstance(known, dict)
        result[name] = merged(known, value) if both else value
    return result


def possible(names: list[str]) -> bool:
    """Whether the chart accepts these first choices: only our own Redis has a backup."""
    chosen = dict(zip(CHOICES, names, strict=False))
    return chosen.get("redis", "inside") == "inside" or chosen.get("backup", "none") == "none"


COMBINATIONS = [
    dict(zip(CHOICES, names, strict=True))
    for names in AllPairs([list(found) for found in CHOICES.values()], filter_func=possible)
]


def run(values: Object, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(require_program("helm"), "template", "gamma", CHART, "--namespace", "gamma"),
            *("--values", "-", *arguments),
        ],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )


def template(values: Object, *arguments: object) -> list[Object]:
    """The objects of the chart with these values."""
    answer = run(values, *arguments)
    assert answer.returncode == 0, answer.stderr
    return [found for found in yaml.load_all(answer.stdout, yaml.CSafeLoader) if found]


@cache
def render(**chosen: str) -> dict[tuple[str, str], Object]:
    """The objects with these choices, by kind and name."""
    values: Object = {}
    for name, choice in chosen.items():
        values = merged(values, CHOICES[name][choice])
    return {(o["kind"], o["metadata"]["name"]): o for o in template(values)}


def pod(found: dict[tuple[str, str], Object], name: str) -> Object:
    return found["Deployment", name]["spec"]["template"]["spec"]


def variables(found: dict[tuple[str, str], Object], name: str) -> dict[str, Any]:
    (container,) = pod(found, name)["containers"]
    return {v["name"]: v.get("value") for v in container.get("env", ())} | found[
        "ConfigMap", "settings"
    ]["data"]


@cache
def validate(manifest: str) -> None:
    """Check an object in JSON against the schemas of the oldest version that is supported."""
    from tests.deploy import schemas

    assert schemas.problem(json.loads(manifest), [schemas.OLDEST]) is None


@pytest.mark.slow  # two dozen runs of helm
@pytest.mark.parametrize("chosen", COMBINATIONS, ids=lambda chosen: " ".join(chosen.values()))
def test_every_pair_of_choices_renders_and_validates(chosen: dict[str, str]) -> None:
    found = render(**chosen)
    for manifest in found.values():
        validate(json.dumps(manifest, sort_keys=True))
    volumes = {"database": "gamma_database_url", "redis": "redis-tls"}
    text = json.dumps(pod(found, "api"))
    assert (volumes["database"] in text) == (chosen["database"] == "postgresql")
    assert (volumes["redis"] in text) == (chosen["redis"] == "tls")
    for name in PROGRAMS:
        (container,) = pod(found, name)["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod(found, name)["volumes"]}
    assert all(
        {"cpu", "memory"} <= set(container["resources"]["limits"])
        for manifest in found.values()
        for container in containers(manifest)
    )


def containers(manifest: Object) -> list[Object]:
    """Containers of all pods that an object describes."""
    spec = manifest.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    pods = spec.get("template", {}).get("spec", {})
    return [*pods.get("initContainers", ()), *pods.get("containers", ())]


def plain(manifest: Object) -> Object:
    """An object without what only Helm or only Kustomize adds."""
    found = json.loads(json.dumps(manifest))
    text = json.dumps(found)
    for name in ("settings", "redis"):  # Kustomize adds a hash to their names
        for other in kubernetes("cpu"):
            if other["kind"] == "ConfigMap" and other["metadata"]["name"].startswith(f"{name}-"):
                text = text.replace(other["metadata"]["name"], name)
    found = json.loads(text)
    found["metadata"].pop("namespace", None)
    for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
        found["metadata"]["labels"].pop(label, None)
    with_pods = found["spec"].get("template", {}) if "spec" in found else {}
    annotations = with_pods.get("metadata", {}).pop("annotations", {})
    assert all(name.startswith("checksum/") for name in annotations)
    for claim in found.get("spec", {}).get("volumeClaimTemplates", ()):
        claim["metadata"].pop("labels", None)
    return found


@pytest.mark.parametrize(("overlay", "values"), [("cpu", ()), ("gpu", ("values-gpu.yaml",))])
def test_the_chart_is_the_overlay(overlay: str, values: tuple[str, ...]) -> None:
    arguments = [word for name in values for word in ("--values", CHART / name)]
    compare(template({}, *arguments), kubernetes(overlay))


def test_the_chart_with_a_database_is_the_overlay_with_the_component(tmp_path: Path) -> None:
    (tmp_path / "gamma").symlink_to(ROOT)
    folder = "gamma/deploy/kubernetes"
    own = {
        "resources": [f"{folder}/overlays/cpu"],
        "components": [f"{folder}/components/postgresql"],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(own))
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "database"}}}
    values = {"database": {"enabled": True, "egress": {"to": [peer]}}}
    compare(template(values), build(tmp_path))


def compare(chart: list[Object], kustomization: list[Object]) -> None:
    """Assert that both have the same objects, except for what only one of them can have."""
    ours = {(o["kind"], o["metadata"]["name"]): plain(o) for o in chart}
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text()
    assert ours.pop(("PrometheusRule", "gamma"))["spec"] == yaml.safe_load(
        rules.replace("{{ $externalLabels.runbooks }}", "docs/runbooks")
    )
    theirs = {
        (found["kind"], found["metadata"]["name"]): found
        for found in map(plain, kustomization)
        if found["kind"] != "Namespace"
    }
    assert ours.keys() == theirs.keys()
    for name, found in ours.items():
        assert found == theirs[name], name


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == VERSION


def test_the_chart_can_be_packaged_without_the_repository(tmp_path: Path) -> None:
    helm = require_program("helm")
    subprocess.run([helm, "lint", "--strict", CHART], check=True)
    subprocess.run([helm, "package", CHART, "--destination", tmp_path], check=True)
    (package,) = tmp_path.glob("*.tgz")
    shown = subprocess.check_output(
        [helm, "template", "gamma", package, "--set", "monitoring.dashboards=true"], text=True
    )
    found = {o["metadata"]["name"]: o for o in yaml.safe_load_all(shown) if "data" in o}
    assert found["redis"]["data"]["redis.sh"] == (ROOT / "deploy/redis/redis.sh").read_text()
    files = {file.name: file.read_text() for file in ROOT.glob("deploy/grafana/dashboards/*.json")}
    assert found["dashboards"]["data"] == files


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"worker": {"replicas": {"min": 0}}, "keda": {"enabled": False}}, "needs keda.enabled"),
        ({"redis": {"mode": "external"}}, "redis.egress.to"),
        ({"database": {"enabled": True}}, "database.egress.to"),
        ({"traces": {"endpoint": "http://collector:4318"}}, "traces.egress.to"),
        ({"checkpoint": {"source": "pvc", "path": "own"}}, "checkpoint.claim"),
        ({"checkpoint": {"source": "hub"}}, "checkpoint.name"),
        (
            {"backup": {"enabled": True}, **CHOICES["redis"]["sentinel"]},
            "backup is for redis.mode: inCluster",
        ),
        ({"redis": {"mode": "cluster"}}, "must be one of"),
        ({"worker": {"replica": {"min": 2}}}, "'replica' not allowed"),
    ],
)
def test_values_that_cannot_work_are_refused(values: Object, reason: str) -> None:
    answer = run(values)
    assert answer.returncode != 0
    assert reason in answer.stderr


def test_a_worker_s_pod_has_the_time_that_the_worker_takes() -> None:
    for found, seconds in ((render(), Settings().stop_timeout), (render(rest="set"), 300)):
        assert pod(found, "worker")["terminationGracePeriodSeconds"] == seconds
        assert variables(found, "worker")["GAMMA_STOP_TIMEOUT"] == str(seconds)


def test_settings_are_settings() -> None:
    known = {f"GAMMA_{name.upper()}" for name in Settings.model_fields} | {"GAMMA_SECRETS_DIR"}
    for store, checkpoint in (("keys", "pvc"), ("role", "hub")):
        found = render(store=store, checkpoint=checkpoint)
        for name in PROGRAMS:
            assert {v for v in variables(found, name) if v.startswith("GAMMA_")} <= known
    assert variables(found, "worker")["GAMMA_CHECKPOINT"] == "house/own"
    assert variables(found, "worker")["GAMMA_STORE"] == "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"secret": {"values": {"gamma_api_keys": "a=1"}}}, {"secret": {"checksum": "2"}}),
        ({"settings": {"GAMMA_RETENTION": 60}}, {"settings": {"GAMMA_RETENTION": 600}}),
    ],
)
def test_a_change_of_secrets_or_settings_restarts_the_pods(one: Object, other: Object) -> None:
    def annotations(values: Object) -> list[Object]:
        found = [o for o in template(values) if o["kind"] in ("Deployment", "StatefulSet")]
        return [o["spec"]["template"]["metadata"]["annotations"] for o in found]

    assert len(annotations(one)) == 4
    assert all(a != b for a, b in zip(annotations(one), annotations(other), strict=True))
    assert annotations(one) == annotations(one)


def test_without_work_no_gpu_is_taken_but_held_work_keeps_one() -> None:
    found = render(device="gpu", scaling="to zero")
    scaled = found["ScaledObject", "worker"]["spec"]
    assert scaled["minReplicaCount"] == 0
    triggers = {trigger["name"]: trigger["metadata"] for trigger in scaled["triggers"]}
    assert triggers.keys() == {"length", "age", "work"}
    assert "gamma_jobs_in_hand" in triggers["work"]["query"]
    ours = {rule["alert"]: rule["expr"] for rule in alerts(found)}
    usual = {rule["alert"]: rule["expr"] for rule in alerts(render())}
    (changed,) = ours.items() - usual.items()
    assert changed[0] == "GammaNoWorker"
    assert "gamma_queue_oldest_age_seconds" in changed[1]


def alerts(found: dict[tuple[str, str], Object]) -> list[Object]:
    groups = found["PrometheusRule", "gamma"]["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_sentinels_and_redis_are_reachable() -> None:
    policy = render(redis="sentinel")["NetworkPolicy", "clients-to-redis"]["spec"]
    (rule,) = policy["egress"]
    assert [port["port"] for port in rule["ports"]] == [6379, 26379]
    assert rule["to"] == PEER
    assert ("NetworkPolicy", "redis-from-clients") not in render(redis="sentinel")


def test_all_programs_export_to_the_collector() -> None:
    found = render(traces="exported")
    spec = found["NetworkPolicy", "to-collector"]["spec"]
    (expression,) = spec["podSelector"]["matchExpressions"]
    assert set(expression["values"]) == set(PROGRAMS)
    assert spec["egress"] == [{"to": PEER, "ports": [{"port": 4318}]}]
    for name in PROGRAMS:
        assert exports_spans(variables(found, name))
        assert not exports_spans(variables(render(), name))


def test_a_backup_reaches_redis() -> None:
    found = render(backup="hourly")
    for name in ("names", "clients-to-redis"):
        (expression,) = found["NetworkPolicy", name]["spec"]["podSelector"]["matchExpressions"]
        assert "backup" in expression["values"]
    job = found["CronJob", "backup"]["spec"]["jobTemplate"]["spec"]["template"]
    assert job["metadata"]["labels"]["app.kubernetes.io/component"] == "backup"


def test_commands_in_the_docs_render() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    found = re.findall(r"^\$ helm (install|upgrade) (gamma .*)$", text, re.MULTILINE)
    assert [verb for verb, _ in found] == ["install", "upgrade"]
    for _, arguments in found:
        words = [word for word in shlex.split(arguments) if word != "--reuse-values"]
        subprocess.run(
            [require_program("helm"), "template", *words], cwd=ROOT, check=True, capture_output=True
        )
