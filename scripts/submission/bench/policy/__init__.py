"""**Part 3: the model at work.** Loading, memory, log-probabilities without all logits, decoding,
updates in float32. The numbers are those of stock Tunix (`tests/policy/test_losses.py`,
`tests/policy/test_decoding.py`), with less memory and time (`scripts/benchmark.py`).
"""
