"""The `gamma` command, and the processes that it starts."""
