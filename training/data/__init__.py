"""Data sets: manifests, importers, forgeries, inspection."""
