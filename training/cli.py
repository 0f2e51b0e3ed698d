"""The `gamma-train` command."""

from __future__ import annotations

import typer

from training.commands import fit, forge, importing, inspect, scoring

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


data.command("import", epilog=importing.names())(importing.import_data_set)
data.command("split")(importing.split_manifests)
data.command("tamper")(forge.tamper)
data.command("inpaint")(forge.inpaint)
data.command("blend")(forge.blend)
data.command("crop")(forge.crop)
data.command("align")(forge.align)
data.command("audit")(inspect.audit_manifests)
data.command("preview")(inspect.preview)
app.command()(scoring.evaluate)
app.command()(scoring.robustness)
app.command()(scoring.calibrate)
app.command()(scoring.export)
app.command()(fit.glance)
app.command()(fit.fit)
app.command()(fit.ablate)
