"""The `gamma-train` command."""

from __future__ import annotations

import typer

from training import (
    commands_fit,
    commands_forge,
    commands_import,
    commands_inspect,
    commands_scoring,
)

app = typer.Typer(
    help="From folders of pictures to a GAMMA checkpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take [default: …] for markup
)
data = typer.Typer(
    help="Data sets: import, forge, inspect.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data, name="data")


@app.callback()
def main() -> None:
    """From folders of pictures to a GAMMA checkpoint."""


data.command("import", epilog=commands_import.names())(commands_import.import_data_set)
data.command("split")(commands_import.split_manifests)
data.command("tamper")(commands_forge.tamper)
data.command("inpaint")(commands_forge.inpaint)
data.command("blend")(commands_forge.blend)
data.command("crop")(commands_forge.crop)
data.command("align")(commands_forge.align)
data.command("audit")(commands_inspect.audit_manifests)
data.command("preview")(commands_inspect.preview)
app.command()(commands_scoring.evaluate)
app.command()(commands_scoring.robustness)
app.command()(commands_scoring.calibrate)
app.command()(commands_scoring.export)
app.command()(commands_fit.glance)
app.command()(commands_fit.fit)
app.command()(commands_fit.ablate)
