"""`python -m training` is the `gamma-train` command."""

from training.cli import app

app(prog_name="gamma-train")
