"""**The bench, part 1: what can be chosen.** A frozen dataclass for each concern, with the unit and
the reason beside each field: model, source, adapter, optimizer, both stages, rewards, guards,
evaluation, profile, recipe, run. It promises that no field is read that is not here, and that a
wrong value in a variable stops the first cell (`tests/test_config.py`).
"""
