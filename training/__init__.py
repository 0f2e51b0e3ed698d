"""Data tools, training, evaluation and export: the `gamma-train` command."""
