"""`python -m app` is the `gamma` command."""

from app.command.cli import app

app(prog_name="gamma")
