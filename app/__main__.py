"""`python -m app` is the `gamma` command."""

from app.cli import app

app(prog_name="gamma")
