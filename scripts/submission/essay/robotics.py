# %% [markdown]
# ### A plan is executed
#
# A robot on a floor of 4 × 4 cells, a goal, sometimes a box to bring there, sometimes walls. The
# answer is a plan, as in `E E G N N P`: four moves, G to grab the box, P to put it down. Many
# plans are right, so none is compared: the checker executes it in the row's own world. A step off
# the floor or into a wall, or a grab at nothing, ends it.

# %%
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# %% tags=["modules-only"]
from submission.bench.answers.prompts import MORE_CHECKERS, Example

# %%
MOVES = {"N": (0, 1), "E": (1, 0), "S": (0, -1), "W": (-1, 0)}
WORDS_OF_PLANS = {"north": "N", "east": "E", "south": "S", "west": "W", "grab": "G", "put": "P"}
LONGEST_PLAN = 50  # steps: two to each cell


def read_plan(answer: str) -> list[str]:
    """The steps of a plan; none if anything else stands there, or too many.

    >>> read_plan("E, E, grab"), read_plan("E E and then home")
    (['E', 'E', 'G'], [])
    """
    words = [word for word in re.split(r"[\s,;.]+", answer[:1000].strip()) if word]
    steps = [WORDS_OF_PLANS.get(word.lower(), word.upper()) for word in words]
    known = set(WORDS_OF_PLANS.values())
    return steps if len(steps) <= LONGEST_PLAN and known.issuperset(steps) else []


def execute(world: Mapping[str, Any], plan: Sequence[str]) -> bool:
    """Does the plan end with the box, or without one the robot, at the goal?

    >>> world = {"size": 5, "robot": [1, 2], "box": [3, 2], "goal": [3, 4], "walls": []}
    >>> execute(world, "E E G N N P".split()), execute(world, "E E N N".split())
    (True, False)
    """
    robot, box, goal = (world[name] and tuple(world[name]) for name in ("robot", "box", "goal"))
    walls, carries = set(map(tuple, world["walls"])), False
    for step in plan:
        if step in MOVES:
            robot = (robot[0] + MOVES[step][0], robot[1] + MOVES[step][1])
            if robot in walls or not all(0 <= place < world["size"] for place in robot):
                return False
            box = robot if carries else box
        elif carries != (step == "P") or robot != box:  # grabs at nothing, or has nothing to put
            return False
        else:
            carries = not carries
    return not carries and (box or robot) == goal


def check_plan(example: Example, answer: str) -> bool | None:
    """Does the answer, executed in the row's world, end as it should? None without a world."""
    if not example.tests:
        return None
    plan = read_plan(answer)
    return bool(plan) and execute(json.loads(example.tests[0]), plan)


MORE_CHECKERS["plan"] = check_plan
