"""**Part 2: is an answer right?** Numbers compared exactly, formulas, choices, yes/no, text,
programs by their values in a sandbox, open answers by a model of meaning. 2,056 answers
in the forms that people write (`tests/answers/test_reward_cases.py`); 426 attacks that
earn no more than an honest try (`tests/answers/test_reward_hacks.py`).
"""
