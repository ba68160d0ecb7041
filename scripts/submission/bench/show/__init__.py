"""**Part 6: evaluation and what is shown.** The judges' sampler, intervals, tables, plots. What is
shown is what stands in `results.json` (`tests/show/test_evaluate.py`).
"""
