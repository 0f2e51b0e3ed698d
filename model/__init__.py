"""GAMMA: the network, its pictures, its checkpoints and the detector that serves them.

Nothing is imported here, so that ``import model`` costs nothing; see ``model/README.md`` for the
map of the modules.
"""
