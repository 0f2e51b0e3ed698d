"""`gamma doctor`: checks whether the service can run with these settings on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict

from app.command.console import console
from app.command.doctor import machine, redis_server, storage
from app.command.doctor.findings import Finding, State, wrong
from app.contract.settings import Settings

_STYLES = {State.OK: "green", State.NOTE: "yellow", State.WRONG: "red"}


def examine(settings: Settings, *, as_json: bool = False) -> bool:
    """Run all checks and print one line per finding, with advice below it.

    Args:
        settings: settings to check.
        as_json: print one JSON object instead.

    Returns:
        True if no finding has the state `wrong`.
    """
    findings = diagnose(settings)
    fine = all(finding.state is not State.WRONG for finding in findings)
    if as_json:
        answer = {"fine": fine, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(answer, allow_nan=False))
        return fine
    output = console()
    for finding in findings:
        output.print(f"{finding.state:6}", style=_STYLES[finding.state], end="")
        output.print(f"{finding.subject:9}", finding.found, soft_wrap=True)
        if finding.advice is not None:
            output.print(f"{'':16}→ {finding.advice}", soft_wrap=True)
    return fine


def diagnose(settings: Settings) -> list[Finding]:
    """All findings, in the order in which to fix them."""
    findings: list[Finding] = []
    for check in (
        redis_server.examine,
        storage.bucket,
        storage.reviews,
        machine.disk,
        machine.model,
        machine.device,
        machine.ports,
        machine.access,
        machine.webhooks,
        machine.files,
        machine.limits,
    ):
        try:
            findings += check(settings)
        except Exception as error:  # a failed check must not hide the other findings
            findings.append(
                wrong(check.__name__, f"check failed: {error!r}", "report this, with the log")
            )
    return findings
