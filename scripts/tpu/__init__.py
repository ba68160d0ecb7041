"""Compiles the programs of a run for a TPU, and counts what they cost."""
