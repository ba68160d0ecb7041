"""**Part 4: a run that ends in time and loses nothing.** The clock, the run's folder, the log,
checkpoints that are read back before they count, guards against a collapse, and the stage that
ties them to Tunix's trainer. It promises that no step is begun that would not end in time
(`tests/test_budget.py`), and that a killed run goes on with the same bits
(`tests/test_stages.py`).
"""
