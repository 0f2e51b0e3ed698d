"""`gamma doctor`: whether the service can run with these settings on this machine, and why not."""

from __future__ import annotations

import json
from dataclasses import asdict

from app.command.console import console
from app.command.doctor import machine, redis_server, storage
from app.command.doctor.findings import Finding, State, wrong
from app.contract.settings import Settings

_STYLES = {State.OK: "green", State.NOTE: "yellow", State.WRONG: "red"}


def examine(settings: Settings, *, as_json: bool = False) -> bool:
    """Print what is found, a line a subject, and below what is not right what to do about it.

    Args:
        settings: those of this process.
        as_json: print one JSON object instead.

    Returns:
        Whether nothing is wrong; what is only worth a note counts as fine.
    """
    findings = diagnose(settings)
    fine = all(finding.state is not State.WRONG for finding in findings)
    if as_json:
        told = {"fine": fine, "findings": [asdict(one) for one in findings]}
        print(json.dumps(told, allow_nan=False))
        return fine
    output = console()
    for finding in findings:
        output.print(f"{finding.state:6}", style=_STYLES[finding.state], end="")
        output.print(f"{finding.subject:9}", finding.found, soft_wrap=True)
        if finding.advice is not None:
            output.print(f"{'':16}→ {finding.advice}", soft_wrap=True)
    return fine


def diagnose(settings: Settings) -> list[Finding]:
    """Everything that is found, in the order in which it is to be mended."""
    findings: list[Finding] = []
    for check in (
        redis_server.examine,
        storage.bucket,
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
        except Exception as error:  # a doctor that stumbles still has to tell the rest
            findings.append(
                wrong(
                    check.__name__, f"could not be examined: {error!r}", "report this, with the log"
                )
            )
    return findings
