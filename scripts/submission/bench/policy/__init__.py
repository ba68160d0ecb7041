"""**Part 3: the model at work.** Loading, memory, log-probabilities without all logits, decoding,
updates in float32. The numbers are those of stock Tunix (`tests/policy/test_losses.py`,
`tests/policy/test_decoding.py`); a GRPO step takes 0.54 of its time (`scripts/benchmark.py`).
"""
