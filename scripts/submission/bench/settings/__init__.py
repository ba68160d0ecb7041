"""**Part 1: what can be chosen.** A frozen dataclass for each concern. A wrong value in a variable
stops the first cells (`tests/settings/test_config.py`).
"""
