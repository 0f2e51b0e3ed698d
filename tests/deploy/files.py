"""The deployment's files, parsed."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PINNED = re.compile(r":v?\d+\.\d+\.\d+(-[a-z0-9-]+)?$")


def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE_FILE.read_text())


def dashboard() -> dict[str, Any]:
    return json.loads((ROOT / "deploy/grafana/dashboards/overview.json").read_text())


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


def stages() -> dict[str, Stage]:
    """The stages of the Dockerfile; a here-document is part of its instruction."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", "", text)
    found: dict[str, Stage] = {}
    lines = iter(text.splitlines())
    for line in filter(None, lines):
        keyword, arguments = line.split(maxsplit=1)
        if mark := re.search(r"<<(\w+)$", arguments):
            body = iter(lambda: next(lines), mark.group(1))  # up to the line of the mark alone
            arguments = "\n".join([arguments, *body])
        if keyword == "FROM":
            parent, _, name = arguments.split()
            stage = found[name] = Stage(name, parent)
        else:
            stage.instructions.append((keyword, arguments))
    return found


def lineage(name: str) -> list[Stage]:
    """A stage and all that it starts from, itself first."""
    known, line = stages(), []
    while name in known:
        line.append(known[name])
        name = known[name].parent
    return line
