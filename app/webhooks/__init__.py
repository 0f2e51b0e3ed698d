"""Webhooks: signed requests to a caller's URL when a detection has ended."""
