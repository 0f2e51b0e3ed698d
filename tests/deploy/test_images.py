"""What can be said of the images without building them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.contract.settings import Settings
from app.http.binding import OpenBindError, check_binding
from tests.conftest import Serve, free_port
from tests.deploy.files import PINNED, ROOT, VERSION, Stage, lineage, stages

TARGETS = ("api", "worker")
LOCKS = ROOT / "deploy/requirements"
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
}
WORKER_ONLY = {"torch", "transformers", "safetensors", "scipy"}


def image_environment(target: str) -> dict[str, str]:
    return {k: v for stage in reversed(lineage(target)) for k, v in stage.environment().items()}


def needed_by(target: str) -> dict[str, Stage]:
    """Every stage that has a part in an image."""
    known, needed, open_names = stages(), {}, [target]
    while open_names:
        stage = known.get(open_names.pop())
        if stage is not None and stage.name not in needed:
            needed[stage.name] = stage
            open_names += [stage.parent, *stage.copied_from()]
    return needed


def test_default_target_is_the_small_image() -> None:
    assert list(stages())[-2:] == ["worker", "api"]


def test_base_image_is_pinned() -> None:
    known = stages()
    outside = {stage.parent for stage in known.values()} - set(known)
    assert len(outside) == 1
    base = outside.pop()
    assert re.match(r"python:3\.11\.\d+-slim-", base)
    assert PINNED.search(base)
    for target in TARGETS:
        assert f'org.opencontainers.image.base.name="docker.io/library/{base}"' in str(
            known[target].all("LABEL")
        )


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_unprivileged_with_a_health_check(target: str) -> None:
    stage = stages()[target]
    assert stage.all("USER") == ["10001:10001"]
    last_copy = max(i for i, (keyword, _) in enumerate(stage.instructions) if keyword == "COPY")
    assert stage.instructions.index(("USER", "10001:10001")) > last_copy
    assert len(stage.all("HEALTHCHECK")) == 1
    assert json.loads(stage.all("CMD")[0]) == [target]
    entry_points = [line for parent in lineage(target) for line in parent.all("ENTRYPOINT")]
    assert entry_points == ['["gamma"]']


@pytest.mark.parametrize("target", TARGETS)
def test_code_is_in_a_layer_of_its_own(target: str) -> None:
    copied = [line for line in stages()[target].all("COPY") if "/opt/" in line]
    assert copied == [
        f"--from=packages-{target} /opt/gamma /opt/gamma",
        f"--from=build-{target} /opt/code /opt/code",
    ]
    packages = needed_by(f"packages-{target}")
    assert not {"code", "wheel"} & set(packages)  # a change of the code leaves them as they are
    assert "COPY" not in [keyword for keyword, _ in stages()[f"packages-{target}"].instructions]


def test_the_image_of_the_api_has_neither_weights_nor_byte_code() -> None:
    assert '-name "*.safetensors" -delete' in str(stages()["build-api"].all("RUN"))
    weights = [f for f in (ROOT / "model").rglob("*") if f.stat().st_size > 2**20 and f.is_file()]
    assert {file.suffix for file in weights if "__pycache__" not in file.parts} == {".safetensors"}
    for name in ("code", "packages-api"):
        (install,) = [line for line in stages()[name].all("RUN") if " install " in line]
        assert "--no-compile" in install
    assert image_environment("api")["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize("target", TARGETS)
def test_images_have_labels(target: str) -> None:
    stage = stages()[target]
    (labels,) = stage.all("LABEL")
    for name in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f"VERSION={VERSION}" in stage.all("ARG")


def test_exposed_ports_equal_settings() -> None:
    for target in TARGETS:
        environment = image_environment(target)
        ports = stages()[target].all("EXPOSE")[0].split()
        assert environment["GAMMA_METRICS_PORT"] in ports
        assert (environment["GAMMA_PORT"] in ports) == (target == "api")


@pytest.mark.parametrize("target", TARGETS)
def test_images_have_no_build_tools(target: str) -> None:
    for stage in lineage(target):
        commands = " ".join(stage.all("RUN"))
        assert "apt" not in commands
        assert "pip install" not in commands
    assert "pip uninstall --yes --root-user-action=ignore pip setuptools wheel" in str(
        [stage.all("RUN") for stage in lineage(target)]
    )


def test_packages_are_installed_by_hash() -> None:
    installs = [
        command
        for stage in stages().values()
        for line in stage.all("RUN")
        for command in re.split(r"&&|;", line)
        if re.search(r"\bpip\b.*\binstall\b", command)
    ]
    assert len(installs) == 5
    for command in installs:
        assert (
            re.search(r"--require-hashes -r \S+\.txt", command)
            or "--no-deps --no-compile --target /opt/code /wheels/" in command
            or command.rstrip().endswith("-r torch.txt")
        ), command
    (wheel,) = [line for line in stages()["wheel"].all("RUN") if "pip wheel" in line]
    assert "--no-build-isolation" in wheel  # else pip would fetch the builder by itself


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_cpu_torch_is_installed_by_hash(digest: str, tmp_path: Path) -> None:
    (command,) = [line for line in stages()["packages-worker"].all("RUN") if "torch.txt" in line]
    script = re.sub(r"^--mount=\S+ ", "", command)
    shutil.copy(LOCKS / "worker-cuda.txt", tmp_path)
    (tmp_path / "pip").write_text("#!/bin/sh\ntouch pip-was-called\n")
    (tmp_path / "pip").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH": "cuda"}
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=environment, check=True)
    assert not (tmp_path / "pip-was-called").exists()
    environment |= {"TORCH": "cpu", "TORCH_CPU_SHA256": digest}
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "pip-was-called").exists()
    expected = f"torch=={PINS['torch']}" + (f" --hash=sha256:{digest}" if digest else "")
    assert (tmp_path / "torch.txt").read_text() == f"{expected}\n"


def locked(name: str) -> dict[str, str]:
    """Version of each package in a file of requirements, all of which have hashes."""
    text = (LOCKS / f"{name}.txt").read_text()
    blocks = re.findall(
        r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.M
    )
    assert len(blocks) == len(re.findall(r"^\w", text, re.M))
    return {canonicalize_name(package): version for package, version, _ in blocks}


def is_cuda(package: str) -> bool:
    return re.match(r"nvidia-|cuda-|triton$", package) is not None


@pytest.mark.parametrize(
    ("name", "target"), [("api", "api"), ("worker-cpu", "worker"), ("worker-cuda", "worker")]
)
def test_lock_files_match_requirements_and_constraints(name: str, target: str) -> None:
    """If not: sh deploy/requirements/lock.sh."""
    versions = locked(name)
    ours = {package for package in versions if not is_cuda(package)}
    absent = {"torch"} if name == "worker-cpu" else set()
    assert ours == {p for p in installed(target) if not is_cuda(p)} - absent
    assert {package: versions[package] for package in ours} == {p: PINS[p] for p in ours}
    assert any(map(is_cuda, versions)) == (name == "worker-cuda")


def test_api_image_excludes_worker() -> None:
    needed = needed_by("api")
    assert not {"worker", "build-worker", "packages-worker"} & set(needed)
    assert "-r api.txt" in str(needed["packages-api"].all("RUN"))
    assert "worker" not in str(needed["packages-api"].all("RUN"))
    assert {"fastapi", "rq"} <= set(locked("api"))
    assert not WORKER_ONLY & set(locked("api"))
    assert set(locked("worker-cuda")) >= set(locked("api")) | WORKER_ONLY


def installed(target: str) -> set[str]:
    """Every distribution in an image but ours, as the packages installed here name each other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ("otel", "s3") if target == "api" else ("otel", "s3", "worker")
    lines = [line for extra in extras for line in project["optional-dependencies"][extra]]
    found: set[tuple[str, str]] = set()
    new = {Requirement(line) for line in (*project["dependencies"], *lines)}
    while new:
        pairs = {(r.name, extra) for r in new for extra in ("", *r.extras)} - found
        found |= pairs
        new = {
            needed
            for name, extra in pairs
            for needed in map(Requirement, metadata.requires(name) or ())
            if needed.marker is None or needed.marker.evaluate({"extra": extra})
        }
    return {canonicalize_name(name) for name, _ in found}


def test_copied_files_exist_and_are_in_the_build_context() -> None:
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    known = stages()
    for stage in known.values():
        for line in stage.all("COPY"):
            source = re.search(r"--from=(\S+)", line)
            if source is not None:
                assert source.group(1) in known
                continue
            for name in line.split()[:-1]:
                assert (ROOT / name).exists(), name
                folders = map(str, Path(name).parents)
                assert any(f"!{path}" in let_through for path in (name, *folders)), name


def test_build_context_is_an_allowlist() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert all((ROOT / rule[1:]).exists() for rule in rules if rule.startswith("!"))
    assert not any(rule in ("!.", "!deploy", "!deploy/secrets", "!.git") for rule in rules)


def test_images_contain_no_secrets() -> None:
    for stage in stages().values():
        for line in stage.all("ARG") + stage.all("ENV"):
            assert not re.search(r"PASSW|SECRET|TOKEN|_KEY|REDIS_URL", line), line


def test_image_without_keys_refuses_to_start_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, setting in image_environment("api").items():
        if name.startswith("GAMMA_"):
            monkeypatch.setenv(name, setting)
    settings = Settings.load()
    assert settings.host == "0.0.0.0"
    with pytest.raises(OpenBindError):
        check_binding(settings)


def healthcheck(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The proxy, which nobody listens on, must not be asked.
    return subprocess.run(
        [sys.executable, "-I", ROOT / "deploy/healthcheck.py", str(port), *arguments],
        env={**os.environ, "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )


def words_of(target: str) -> list[str]:
    """What the image's health check asks for, after the port."""
    (check,) = stages()[target].all("HEALTHCHECK")
    return shlex.split(check)[-1:] if target == "api" else shlex.split(check)[-2:]


def test_health_check_detects_failure(service: Serve) -> None:
    api = int(service.url.rsplit(":", 1)[1])
    worker = service.metrics_port + 1
    assert healthcheck(api, *words_of("api")).returncode == 0
    assert healthcheck(worker, *words_of("worker")).returncode == 0
    ill = healthcheck(worker, "/metrics", "gamma_worker_up 0.0")
    said = f"/metrics on port {worker}: 200 without 'gamma_worker_up 0.0'\n"
    assert (ill.returncode, ill.stdout) == (1, said)
    unknown = healthcheck(api, "/v1/nothing")
    assert (unknown.returncode, unknown.stdout) == (1, f"/v1/nothing on port {api}: 404\n")
    absent = healthcheck(free_port(), "/livez")
    assert (absent.returncode, absent.stderr) == (1, "")
