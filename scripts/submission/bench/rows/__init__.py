"""**Part 5: from anyone's row to a batch.** Reads bundled and public rows, turns them into
`Example`s, drops what does not fit, fails its own checker, repeats or gives away a held-out row,
and mixes and packs the rest. It promises that every drop is counted with its reason
(`tests/test_data.py`, `tests/test_mixture.py`), and that a source that is down is waited for,
then left out with a warning (`tests/test_reading.py`).
"""
