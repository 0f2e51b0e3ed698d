"""Picture files: reading headers, decoding and encoding, without PyTorch.

Shared by the API, the workers and training; imports none of them.
"""
