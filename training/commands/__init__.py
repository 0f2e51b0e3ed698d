"""The commands of `gamma-train`: arguments, messages and exit codes."""
