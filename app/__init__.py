"""The HTTP service: API, store, queue client, settings, moderators' page and `gamma` command."""
