"""The deployment's files, parsed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from dockerfile_parse import DockerfileParser

from tests.conftest import require_program

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PINNED = re.compile(r":v?\d+\.\d+\.\d+(-[a-z0-9-]+)?$")


def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE_FILE.read_text())


def provisioning(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy/grafana/provisioning" / name).read_text())


def scrape_jobs() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    return {job["job_name"]: job for job in config["scrape_configs"]}


def with_defaults(value: Any) -> str:
    """`value` as Compose reads it when no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


@dataclass
class Stage:
    """One stage of the Dockerfile: what it starts from, and its instructions in order."""

    name: str
    parent: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [arguments for found, arguments in self.instructions if found == keyword]

    def environment(self) -> dict[str, str]:
        pairs = [pair for line in self.all("ENV") for pair in line.split()]
        return dict(pair.split("=", 1) for pair in pairs)

    def copied_from(self) -> set[str]:
        found = (re.search(r"--from=(\S+)", line) for line in self.all("COPY"))
        return {match.group(1) for match in found if match}


@cache
def stages() -> dict[str, Stage]:
    """The stages of the Dockerfile."""
    found: dict[str, Stage] = {}
    defaults: dict[str, str] = {}  # of the arguments that come before the first stage
    with (ROOT / "Dockerfile").open("rb") as file:
        lines = DockerfileParser(fileobj=file).structure
    for line in lines:
        keyword, arguments = line["instruction"], re.sub(r"\s+", " ", line["value"])
        if keyword == "FROM":
            parent, _, name = arguments.split()
            parent = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match.group(1)], parent)
            stage = found[name] = Stage(name, parent)
        elif keyword == "ARG" and not found:
            argument, _, defaults[argument] = arguments.partition("=")
        elif keyword != "COMMENT":
            stage.instructions.append((keyword, arguments))
    return found


def lineage(name: str) -> list[Stage]:
    """A stage and all that it starts from, itself first."""
    known, line = stages(), []
    while name in known:
        line.append(known[name])
        name = known[name].parent
    return line


def build(kustomization: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization, as `kubectl apply --kustomize` would send them."""
    command = [require_program("kubectl"), "kustomize", kustomization]
    return list(yaml.load_all(subprocess.check_output(command), yaml.CSafeLoader))


@cache
def kubernetes(overlay: str) -> list[dict[str, Any]]:
    """The objects of one of our overlays."""
    return build(ROOT / "deploy/kubernetes/overlays" / overlay)
