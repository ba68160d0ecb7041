"""The rows of the recipe `robotics`: small worlds, each with a plan that works in it.

    python scripts/robots.py            # writes data/robots.jsonl

A trace walks through the plan, with where the robot is after each step. Which split a world is in
is decided by a hash of it, so that no two splits share one.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import random

from submission.bench.answers.prompts import Example
from submission.essay.robotics import MOVES, check_plan
from tasks import DATA, write_rows

SIZE = 4
ROWS = {"sft": 1500, "grpo": 1000, "held_out": 300}
SHARES = {"sft": 45, "grpo": 45, "held_out": 10}  # of the hash space
# A robot alone, one with a box to bring, one with walls in its way: shares, and how hard it is.
KINDS = {"go": (0.3, 0.2), "bring": (0.5, 0.5), "around": (0.2, 0.8)}


def shortest_way(start: tuple, goal: tuple, walls: set[tuple]) -> list[str] | None:
    """Moves from one cell to another, as few as can be; east and west first. None: no way."""
    came_from: dict[tuple, tuple[tuple, str] | None] = {start: None}
    line = collections.deque([start])
    while line and goal not in came_from:
        here = line.popleft()
        for move in "EWNS":
            there = (here[0] + MOVES[move][0], here[1] + MOVES[move][1])
            if there in walls or there in came_from or not all(0 <= x < SIZE for x in there):
                continue
            came_from[there] = (here, move)
            line.append(there)
    if goal not in came_from:
        return None
    moves, here = [], goal
    while came_from[here]:
        here, move = came_from[here]
        moves.append(move)
    return moves[::-1]


def said(cell: tuple) -> str:
    """A cell, in words."""
    return f"{cell[0]} {cell[1]}"


def walk(start: tuple, plan: list[str]) -> str:
    """A plan with where the robot is after each move."""
    here, words = start, [said(start)]
    for step in plan:
        if step in MOVES:
            here = (here[0] + MOVES[step][0], here[1] + MOVES[step][1])
            words.append(f"{step} {said(here)}")
        else:
            words.append(step)
    return ", ".join(words) + "."


def make_world(rng: random.Random) -> dict[str, object] | None:
    """A row without its split; None if the goal cannot be reached."""
    kind = rng.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]
    cells = [(x, y) for x in range(SIZE) for y in range(SIZE)]
    robot, goal, box, *walls = rng.sample(cells, 5)
    walls = set(walls) if kind == "around" else set()
    plan = shortest_way(robot, box if kind == "bring" else goal, walls)
    if kind == "bring":
        plan = [*(plan or []), "G", *(shortest_way(box, goal, walls) or []), "P"]
    if plan is None:
        return None
    world = {"size": SIZE, "robot": robot, "box": box if kind == "bring" else None,
             "goal": goal, "walls": sorted(walls)}  # fmt: skip
    question = f"Robot {said(robot)}."
    question += f" Box {said(box)}." if kind == "bring" else ""
    question += "".join(f" Wall {said(wall)}." for wall in sorted(walls))
    return {
        "question": f"{question} Goal {said(goal)}. Plan?",
        "answer": " ".join(plan),
        "trace": walk(robot, plan),
        "domain": kind,
        "checker": "plan",
        "choices": [],
        "tests": [json.dumps(world, separators=(",", ":"))],
        "difficulty": KINDS[kind][1],
    }


def split_of(question: str) -> str:
    """The split of a world, by a hash of what is said of it."""
    place = int(hashlib.sha256(question.encode()).hexdigest(), 16) % sum(SHARES.values())
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    raise AssertionError("the shares cover everything")


def rows(seed: int) -> list[dict[str, object]]:
    """The rows of all splits, each world once."""
    rng, found, seen = random.Random(seed), {split: [] for split in ROWS}, set()
    while any(len(found[split]) < count for split, count in ROWS.items()):
        row = make_world(rng)
        if row is None or row["question"] in seen:
            continue
        seen.add(row["question"])
        split = split_of(str(row["question"]))
        if len(found[split]) < ROWS[split]:
            found[split].append(row | {"source": f"robots/{split}"})
    return [row for split in found.values() for row in split]


def main(path: pathlib.Path = DATA / "robots.jsonl") -> None:
    """Writes the rows; each plan works in its world."""
    lines = rows(21)
    for line in lines:
        example = Example(line["question"], line["answer"], "plan", tests=tuple(line["tests"]))
        if not check_plan(example, str(line["answer"])):
            raise AssertionError(f"the plan does not work: {line}")
    write_rows(path, lines)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    main()
