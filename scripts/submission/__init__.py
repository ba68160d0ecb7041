"""The chapters of the notebook, as importable modules."""
