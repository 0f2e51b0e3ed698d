"""Provenance of a picture file: C2PA manifests, metadata, text of generators, watermarks.

It affects neither decoding nor scores. Readers of files run in a decoder process
(`pictures.process`); the watermark detector reads decoded pixels.
"""
