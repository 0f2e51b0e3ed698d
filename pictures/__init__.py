"""Picture files: what their headers say, how they are decoded and encoded.

API, workers and training share it; it imports none of them.
"""
