"""Gemma 3 270M for the profile `small`: from Python packages into Kaggle's Flax layout."""


class GetError(Exception):
    """The model cannot be made ready; the message says why, and what to do."""
