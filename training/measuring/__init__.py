"""Evaluation, robustness, calibration and export of a trained network."""
