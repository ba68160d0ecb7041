"""**Part 4: a run that ends in time and can go on.** Clock, folder, log, checkpoints, guards.
No step is begun that would not end in time (`tests/run/test_budget.py`); a killed run goes on with
the same bits (`tests/run/test_stages.py`).
"""
