"""Pictures."""

import io
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import Image as PngImage
from IPython.display import display
from PIL import Image

BOX = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": "black"}
STEPS = {  # place, text
    "stock": (0.0, 1.0, "stock Gemma\n+ an empty LoRA adapter"),
    "sft": (1.0, 1.0, "1  SFT\nexamples in the format"),
    "rollout": (2.0, 1.0, "2  GRPO\na group of completions\nfor each prompt"),
    "reward": (3.0, 1.0, "rewards\nformat gate, exact checkers,\nlength of the trace"),
    "advantage": (3.0, 0.0, "advantages\nbetter or worse\nthan the group's mean"),
    "update": (2.0, 0.0, "update\npulled back a little\nto the warm start"),
    "save": (1.0, 0.0, "checkpoints/actor/<step>\nread back before it counts"),
    "judge": (0.0, 0.0, "evaluation\nas the judges do it"),
}
PATHS = ("stock sft rollout reward advantage update rollout", "update save judge")
ARROW_STYLE = {"arrowstyle": "-|>", "color": "black", "shrinkA": 4, "shrinkB": 4}


def draw_idea(path: pathlib.Path | None = None) -> None:
    """What happens to the model, as boxes and arrows."""
    figure, axis = plt.subplots(figsize=(10, 3), layout="constrained")
    drawn = {
        name: axis.text(x, y, text, ha="center", va="center", fontsize=9, bbox=BOX)
        for name, (x, y, text) in STEPS.items()
    }
    for start, end in (pair for names in PATHS for pair in itertools.pairwise(names.split())):
        boxes = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        axis.annotate("", STEPS[end][:2], STEPS[start][:2], arrowprops=ARROW_STYLE | boxes)
    axis.set(xlim=(-0.5, 3.55), ylim=(-0.45, 1.45))
    axis.axis("off")
    show(figure, path)


def draw_plan(hours: Mapping[str, float], path: pathlib.Path | None = None) -> None:
    """How a session is spent, as one bar."""
    figure, axis = plt.subplots(figsize=(10, 1.6), layout="constrained")
    colours = ("#999999", "#E69F00", "#DDDDDD", "#0072B2", "#009E73", "#FFFFFF")
    hatches, start = ("", "//", "..", "", "xx", ""), 0.0
    for (name, length), colour, hatch in zip(hours.items(), colours, hatches, strict=True):
        label = f"{name}, {length:.2f} h"
        axis.barh(0, length, left=start, color=colour, hatch=hatch, edgecolor="black",
                  linewidth=0.5, label=label)  # fmt: skip
        start += length
    axis.set(xlim=(0, start), yticks=[], xlabel="hours of the session")
    figure.legend(fontsize=8, ncols=6, loc="outside upper center")
    show(figure, path)


def show(figure: Any, path: pathlib.Path | None) -> None:
    """Saves a figure, shows it in few colours, which keeps a notebook small, and lets it go."""
    if path is not None:
        figure.savefig(path, dpi=150)
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, dpi=90)
    Image.open(whole).convert("RGB").quantize(48).save(small, "PNG", optimize=True)
    display(PngImage(small.getvalue()))
    plt.close(figure)
