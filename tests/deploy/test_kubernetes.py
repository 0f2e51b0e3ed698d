"""What can be said of the Kubernetes manifests without a cluster."""

from __future__ import annotations

import re
import subprocess
from itertools import product
from pathlib import Path

import pytest
import yaml

from app.contract.settings import Settings
from app.http import server
from tests.conftest import require_program
from tests.deploy.files import (
    ROOT,
    VERSION,
    build,
    compose,
    kubernetes,
    lineage,
    scrape_jobs,
    with_defaults,
)
from tests.deploy.manifests import (
    OVERLAYS,
    PODS,
    PROGRAMS,
    Object,
    container,
    each_overlay,
    objects,
    pod,
    selects,
    workloads,
)

each_pod = pytest.mark.parametrize(("overlay", "name"), list(product(OVERLAYS, PODS)))


def environment(overlay: str, name: str) -> dict[str, str]:
    """The variables of a container: of its image, of the settings, its own."""
    target = "worker" if name == "worker" else "api"
    found = {k: v for stage in reversed(lineage(target)) for k, v in stage.environment().items()}
    for source in container(overlay, name)["envFrom"]:
        found |= objects(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    return found | {v["name"]: v.get("value", "") for v in container(overlay, name).get("env", ())}


# -- the published schemas --------------------------------------------------------------------


def problem(manifest: Object) -> str | None:
    """What the published schemas say against a manifest; an unknown field is a problem."""
    from tests.deploy import schemas

    return schemas.problem(manifest)


@each_overlay
def test_manifests_match_published_schemas(overlay: str) -> None:
    found = {(o["kind"], o["metadata"]["name"]): problem(o) for o in kubernetes(overlay)}
    assert set(found.values()) == {None}
    assert len(found) == len(kubernetes(overlay))


def test_unknown_field_is_rejected() -> None:
    for manifest in kubernetes("cpu"):
        assert problem({**manifest, "sepc": {}}) is not None, manifest["kind"]


# -- what the text tells to do ----------------------------------------------------------------

TEXT = (ROOT / "docs/kubernetes.md").read_text()


def test_documented_overlay_builds(tmp_path: Path) -> None:
    (tmp_path / "gamma").symlink_to(ROOT)
    (example,) = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(example)
    own = {(o["kind"], o["metadata"]["name"].split("-")[0]): o for o in build(tmp_path)}
    assert own["ConfigMap", "settings"]["data"] == {
        "GAMMA_SECRETS_DIR": "/run/secrets",
        "GAMMA_RETENTION": "3600",
    }
    for name in PROGRAMS:
        (found,) = own["Deployment", name]["spec"]["template"]["spec"]["containers"]
        assert found["image"] == f"REGISTRY/{container('cpu', name)['image']}"
        settings = own["ConfigMap", "settings"]["metadata"]["name"]
        assert found["envFrom"] == [{"configMapRef": {"name": settings}}]


def test_documented_command_creates_alert_rules() -> None:
    (command,) = re.findall(r"^\$ (\(printf .*) \| kubectl apply --filename -$", TEXT, re.MULTILINE)
    manifest = yaml.safe_load(subprocess.check_output(["sh", "-ec", command], cwd=ROOT))
    assert problem(manifest) is None
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text()
    assert manifest["spec"] == yaml.safe_load(
        rules.replace("{{ $externalLabels.runbooks }}", "docs/runbooks")
    )


def test_documented_secret_has_all_mounted_keys() -> None:
    (command,) = re.findall(r"^\$ (kubectl .* create secret .*)$", TEXT, re.MULTILINE)
    assert command.startswith("kubectl --namespace gamma create secret generic gamma ")
    files = re.findall(r"--from-file=deploy/secrets/(\w+)", command)
    assert set(files) == set(compose()["secrets"])


# -- what belongs together --------------------------------------------------------------------


@each_overlay
def test_references_exist(overlay: str) -> None:
    labels = {name: pod(overlay, name)["metadata"]["labels"] for name in PODS}
    assert set(workloads(overlay)) == set(PODS)
    for name, workload in workloads(overlay).items():
        selector = workload["spec"]["selector"]["matchLabels"]
        assert [n for n in PODS if selector.items() <= labels[n].items()] == [name]
    for name, service in objects(overlay, "Service").items():
        assert service["spec"]["selector"].items() <= labels[name].items()
        ports = {port["name"] for port in container(overlay, name)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    budgets = objects(overlay, "PodDisruptionBudget")
    assert set(budgets) == set(PROGRAMS)
    for name, budget in budgets.items():
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
        assert budget["spec"]["maxUnavailable"] == 1
    for kind, name in {"HorizontalPodAutoscaler": "api", "ScaledObject": "worker"}.items():
        (scaler,) = objects(overlay, kind).values()
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in workloads(overlay)[name]["spec"]  # else they would fight


@each_pod
def test_volumes_and_probes_refer_to_their_pod(overlay: str, name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(overlay, name)["spec"]["volumes"]}
    claims = workloads(overlay)[name]["spec"].get("volumeClaimTemplates", ())
    mounted = {mount["name"] for mount in container(overlay, name)["volumeMounts"]}
    assert mounted == set(volumes) | {claim["metadata"]["name"] for claim in claims}
    for volume in volumes.values():
        if "configMap" in volume:
            assert volume["configMap"]["name"] in objects(overlay, "ConfigMap")
    ports = {port["name"] for port in container(overlay, name)["ports"]}
    probes = [v for k, v in container(overlay, name).items() if k.endswith("Probe")]
    assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= ports
    assert {"startupProbe", "livenessProbe"} <= set(container(overlay, name))


@each_overlay
def test_ports_and_images_match_the_images(overlay: str) -> None:
    services = compose()["services"]
    worker = services["worker-gpu" if overlay == "gpu" else "worker"]
    images = {name: container(overlay, name)["image"] for name in PODS}
    assert images["api"] == images["webhooks"] == services["api"]["image"] == f"gamma-api:{VERSION}"
    assert images["worker"] == worker["image"]
    assert images["redis"] == f"docker.io/{services['redis']['image']}"
    for name in PROGRAMS:
        ports = {p["name"]: str(p["containerPort"]) for p in container(overlay, name)["ports"]}
        variables = environment(overlay, name)
        assert ports["metrics"] == variables["GAMMA_METRICS_PORT"]
        assert ports.get("http", variables["GAMMA_PORT"]) == variables["GAMMA_PORT"]
        known = {f"GAMMA_{field.upper()}" for field in Settings.model_fields}
        assert {v for v in variables if v.startswith("GAMMA_")} - {"GAMMA_SECRETS_DIR"} <= known
        assert container(overlay, name)["args"] == [name]
    assert environment(overlay, "worker")["GAMMA_DEVICE"] == worker["environment"]["GAMMA_DEVICE"]
    limits = container(overlay, "worker")["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (overlay == "gpu")


@each_overlay
def test_memory_limits_equal_compose(overlay: str) -> None:
    names = {"worker": "worker-gpu" if overlay == "gpu" else "worker"}
    for name in PODS:
        limit = with_defaults(compose()["services"][names.get(name, name)]["mem_limit"])
        there = container(overlay, name)["resources"]["limits"]["memory"]
        assert there == f"{limit[:-1]}{limit[-1].upper()}i"


@each_overlay
def test_redis_command_equals_compose(overlay: str) -> None:
    (files,) = [c["data"] for n, c in objects(overlay, "ConfigMap").items() if "redis" in n]
    for name in ("redis.conf", "redis.sh"):
        assert files[name] == (ROOT / "deploy/redis" / name).read_text()
    redis = container(overlay, "redis")
    assert redis["command"] == ["sh", "/etc/gamma/redis.sh", "serve"]
    assert redis["args"][0] == compose()["services"]["redis"]["command"][1] == "--maxmemory"
    assert {m["mountPath"] for m in redis["volumeMounts"]} == {
        "/data",
        "/etc/gamma",
        "/run/secrets",
    }


# -- security ---------------------------------------------------------------------------------


@each_pod
def test_pods_run_without_privileges(overlay: str, name: str) -> None:
    spec = pod(overlay, name)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
    allowed = {"configMap", "emptyDir", "secret", "name"}
    assert {key for volume in spec["volumes"] for key in volume} <= allowed
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert min(context["runAsUser"], context["runAsGroup"], context["fsGroup"]) > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(overlay, name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    resources = container(overlay, name)["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]


@each_overlay
def test_user_equals_image_user(overlay: str) -> None:
    namespace = objects(overlay, "Namespace")["gamma"]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    for name in PROGRAMS:
        context = pod(overlay, name)["spec"]["securityContext"]
        target = lineage("worker" if name == "worker" else "api")[0]
        assert target.all("USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]


@each_overlay
def test_pod_secrets_equal_compose(overlay: str) -> None:
    for name in PODS:
        (volume,) = [v["secret"] for v in pod(overlay, name)["spec"]["volumes"] if "secret" in v]
        assert volume["defaultMode"] & 0o007 == 0
        assert all(item["key"] == item["path"] for item in volume["items"])
        assert [item["key"] for item in volume["items"]] == compose()["services"][name]["secrets"]
        mounts = {m["name"]: m["mountPath"] for m in container(overlay, name)["volumeMounts"]}
        assert mounts["secrets"] == "/run/secrets"
        if name in PROGRAMS:
            assert environment(overlay, name)["GAMMA_SECRETS_DIR"] == "/run/secrets"
    assert not objects(overlay, "Secret")


# -- life, death and numbers ------------------------------------------------------------------


@each_overlay
def test_stop_timeout_covers_running_work(overlay: str) -> None:
    grace = {n: pod(overlay, n)["spec"]["terminationGracePeriodSeconds"] for n in PODS}
    pause = container(overlay, "api")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace["api"] >= pause + server._DRAIN + 10
    assert grace["worker"] == int(environment(overlay, "worker")["GAMMA_STOP_TIMEOUT"])
    assert grace["worker"] == Settings().stop_timeout
    assert grace["webhooks"] > 2 * Settings().webhook_timeout
    assert grace["redis"] >= 30


@each_overlay
def test_liveness_does_not_depend_on_other_pods(overlay: str) -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(overlay, "api")[probe]["httpGet"]["path"] == "/livez"
    ready = container(overlay, "worker")["readinessProbe"]["exec"]["command"]
    (check,) = lineage("worker")[0].all("HEALTHCHECK")
    words = check.split(" CMD ")[1].replace('"', "").replace("$GAMMA_METRICS_PORT", "9400")
    assert " ".join(ready) == words


@each_overlay
def test_autoscaler_queries_queue_length_and_age(overlay: str, tmp_path: Path) -> None:
    spec = objects(overlay, "ScaledObject")["worker"]["spec"]
    asked = {trigger["name"]: trigger["metadata"] for trigger in spec["triggers"]}
    names = {key: re.findall(r"gamma_\w+", found["query"]) for key, found in asked.items()}
    assert names == {
        "length": ["gamma_queue_depth"],
        "age": ["gamma_queue_oldest_age_seconds", "gamma_workers"],
    }
    assert len({found["serverAddress"] for found in asked.values()}) == 1
    documented = (ROOT / "docs/metrics.md").read_text()
    assert all(f"`{name}`" in documented for found in names.values() for name in found)
    rules = [{"record": f"asked:{k}", "expr": v["query"]} for k, v in asked.items()]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    subprocess.run([require_program("promtool"), "check", "rules", file], check=True)
    assert 1 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


@each_overlay
def test_scrape_job_names_equal_compose(overlay: str) -> None:
    spec = objects(overlay, "PodMonitor")["gamma"]["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    (relabelling,) = endpoint["relabelings"]
    assert relabelling["targetLabel"] == "job"
    jobs = {
        relabelling["replacement"].replace("$1", name)
        for name in PODS
        if selects(spec["selector"], pod(overlay, name)["metadata"]["labels"])
    }
    assert jobs == {job for job in scrape_jobs() if job.startswith("gamma-")}
