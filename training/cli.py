"""The `gamma-train` command."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from training.commands import fit, forge, importing, inspect, scoring
from training.errors import UserError
from training.output import complain


class _Commands(TyperGroup):
    """Commands whose errors that a user can fix are printed in one line, with exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except (UserError, OSError) as error:
            complain(error)
        except Exception as error:
            if not _is_model_error(error):
                raise
            complain(error)
        raise typer.Exit(1)


def _is_model_error(error: Exception) -> bool:
    """Return whether a checkpoint, its tower, the device or the outputs are at fault."""
    if "model.checkpoint" not in sys.modules:
        return False  # no network was in use: do not import torch for this
    from model.checkpoint import CheckpointError
    from model.engine import DeviceError, ModelOutputError
    from model.tower import TowerError

    return isinstance(error, CheckpointError | DeviceError | ModelOutputError | TowerError)


app = typer.Typer(
    cls=_Commands,
    help="From folders of pictures to a GAMMA checkpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would parse [default: ...] as markup
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
