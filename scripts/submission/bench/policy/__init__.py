"""**Part 3: the model at work.** Loads stock Gemma by Tunix's own loaders and puts the adapter on
it; plans the memory of a chip; computes losses and log-probabilities without ever holding all
logits; decodes groups from one prefill; trains the adapter in float32 masters. It promises the
numbers of stock Tunix (`tests/test_losses.py`, `tests/test_decoding.py`) in less memory and time
(`scripts/benchmark.py`).
"""
