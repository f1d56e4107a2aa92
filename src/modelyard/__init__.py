"""Modelyard: from training script to watched production endpoint."""

__version__ = "0.1.0"
