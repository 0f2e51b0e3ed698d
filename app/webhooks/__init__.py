"""Webhooks: telling a URL of the caller's that a detection has ended, safely and signed."""
