"""**Part 2: is an answer right?** Reads a completion once, strictly; compares numbers exactly (as
fractions, also in words), formulas through math-verify, choices, yes/no, short text, and
programs by their values in a child process that can be killed. For open rows it scores named
parts of the text. It promises that a right answer in an ordinary form counts and that a hedged
one does not (`tests/test_reward_cases.py`, 735 answers), and that no attack in
`data/reward_hacks.jsonl` earns more than an honest try (`tests/test_reward_hacks.py`).
"""
