"""**Part 6: evaluation and what is shown.** Greedy decoding by the judges' sampler, shares with
Wilson intervals, McNemar's test between two evaluations; tables, plots, samples, boards. It
promises that what is shown is what stands in `results.json` (`tests/test_evaluate.py`).
"""
