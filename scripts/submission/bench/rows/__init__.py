"""**Part 5: from anyone's row to a batch.** Reading, filtering, decontaminating, mixing, packing.
Every drop is counted with its reason (`tests/rows/test_data.py`); a source that is down is waited
for, then left out with a warning (`tests/rows/test_reading.py`).
"""
