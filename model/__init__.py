"""GAMMA: network, crops, checkpoints and detector.

Nothing is imported here, so that ``import model`` is cheap. ``model/README.md`` lists the modules.
"""
