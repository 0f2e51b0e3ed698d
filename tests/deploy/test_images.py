"""What can be said of the images without building them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.server import OpenBindError, check_binding
from app.settings import Settings
from tests.conftest import Serve, free_port
from tests.deploy.files import PINNED, ROOT, VERSION, Stage, lineage, stages

TARGETS = ("api", "worker")
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


def test_a_build_without_a_target_makes_the_small_image() -> None:
    assert list(stages())[-2:] == ["worker", "api"]


def test_everything_starts_from_one_pinned_image() -> None:
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
def test_an_image_runs_as_nobody_in_particular_and_says_how_it_is(target: str) -> None:
    stage = stages()[target]
    assert stage.all("USER") == ["10001:10001"]
    last_copy = max(i for i, (keyword, _) in enumerate(stage.instructions) if keyword == "COPY")
    assert stage.instructions.index(("USER", "10001:10001")) > last_copy
    assert len(stage.all("HEALTHCHECK")) == 1
    assert json.loads(stage.all("CMD")[0]) == [target]
    entry_points = [line for parent in lineage(target) for line in parent.all("ENTRYPOINT")]
    assert entry_points == ['["gamma"]']


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_labelled(target: str) -> None:
    stage = stages()[target]
    (labels,) = stage.all("LABEL")
    for name in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f"VERSION={VERSION}" in stage.all("ARG")


def test_the_exposed_ports_are_those_of_the_settings() -> None:
    for target in TARGETS:
        environment = image_environment(target)
        ports = stages()[target].all("EXPOSE")[0].split()
        assert environment["GAMMA_METRICS_PORT"] in ports
        assert (environment["GAMMA_PORT"] in ports) == (target == "api")


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_no_means_of_building(target: str) -> None:
    for stage in lineage(target):
        commands = " ".join(stage.all("RUN"))
        assert "apt" not in commands
        assert "pip install" not in commands
    assert "pip uninstall --yes --root-user-action=ignore pip setuptools wheel" in str(
        [stage.all("RUN") for stage in lineage(target)]
    )


def test_installed_versions_are_those_of_the_constraints() -> None:
    installs = [
        command
        for stage in stages().values()
        for line in stage.all("RUN")
        for command in re.split(r"&&|;", line)
        if re.search(r"\bpip\b.*\binstall\b", command)
    ]
    assert len(installs) == 5
    for command in installs:
        assert "-c constraints.txt" in command or "--no-deps /wheels/" in command, command


def test_the_constraint_of_torch_fits_every_build_of_it() -> None:
    pins = re.findall(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert len(pins) == 1
    assert "+" not in pins[0]  # 2.1.0 takes 2.1.0+cpu and 2.1.0+cu130 alike


def test_the_api_image_has_no_part_of_the_worker_s(tmp_path: Path) -> None:
    needed = needed_by("api")
    assert not {"worker", "build-worker"} & set(needed)
    assert "-r api.txt" in str(needed["build-api"].all("RUN"))
    assert "worker" not in str(needed["build-api"].all("RUN"))
    assert {"fastapi", "rq"} <= installed(tmp_path, "api")
    assert not WORKER_ONLY & installed(tmp_path, "api")
    assert installed(tmp_path, "worker") >= installed(tmp_path, "api") | WORKER_ONLY


@pytest.mark.parametrize("target", TARGETS)
def test_all_that_is_installed_is_pinned(target: str, tmp_path: Path) -> None:
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert installed(tmp_path, target) <= {canonicalize_name(name) for name in pins}


def installed(folder: Path, target: str) -> set[str]:
    """Every distribution in an image but ours, as the packages installed here name each other."""
    (command,) = [line for line in stages()["requirements"].all("RUN") if "> api.txt" in line]
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / "deploy/requirements.py", folder)
    subprocess.run(["sh", "-ec", command], cwd=folder, check=True)
    found: set[tuple[str, str]] = set()
    new = {Requirement(line) for line in (folder / f"{target}.txt").read_text().splitlines()}
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


def test_what_is_copied_exists_and_is_let_through() -> None:
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
                assert f"!{name}" in let_through, name


def test_the_build_context_is_an_allowlist() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert all((ROOT / rule[1:]).exists() for rule in rules if rule.startswith("!"))
    assert not any(rule in ("!.", "!deploy", "!deploy/secrets", "!.git") for rule in rules)


def test_no_secret_is_built_in() -> None:
    for stage in stages().values():
        for line in stage.all("ARG") + stage.all("ENV"):
            assert not re.search(r"PASSW|SECRET|TOKEN|_KEY|REDIS_URL", line), line


def test_an_image_without_keys_does_not_open_itself(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_health_check_tells_well_from_ill(service: Serve) -> None:
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
