"""The write-up for Kaggle, from the same facts as everything else: `outputs/writeup.md`.

    python scripts/make_writeup.py [--results FILE] [--out DIR]

Beside the text go a cover and the two pictures of the notebook. Numbers come from the results of
a run (`outputs/results.json`), the plan for nine hours
(`data/plan.json`), and the ablations (`data/ablations.md`); tables from the configuration.
"""

import argparse
import json
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
from tpu.plan import COLUMNS

from submission.bench.answers import prompts
from submission.bench.show import overview, pictures, plots, report
from submission.essay import profiles

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOST_WORDS = 1500  # what Kaggle allows
TRAPS = (
    "Tunix trains the adapter in the dtype of the model. In bfloat16 nearly every update rounds "
    "away; the optimizer here keeps a float32 copy.",
    "Sampled tokens come without their EOS, so a policy that is trained on them forgets to stop.",
    "A rollout without a seed draws the same noise at every step.",
    "The default KL estimator has no gradient in expectation; `low_var_kl` has.",
    "The reference is whatever is handed over. Stock Gemma pulls the policy back to before it "
    "knew the format; here it is a frozen copy of the warm start.",
    "A NaN reward counts as 0 without a word.",
    "Weights are laid out in slices over all chips and gathered at every decode step. They fit "
    "whole on each chip, and then nothing but scalars travels.",
    "The last save carries no step number, and there is no deadline: a session that is killed is "
    "lost.",
)


def words(text: str) -> int:
    """How many words a text has, tables and all.

    >>> words("one | two-three | 4.5 |")
    3
    """
    return len(re.findall(r"\w[\w.,'’×-]*", text))


def ablations() -> str:
    """The table of the ablations, as it was measured last, and what it is a table of.

    Without the lines that say least.
    """
    text = (ROOT / "data" / "ablations.md").read_text().partition("\n")[2].strip()
    least = "warm start only, (?:in|its|without)|a warm start|all of it, in|prompts drawn"
    lines = (line for line in text.splitlines() if not re.match(rf"\| (?:{least})", line))
    return "\n".join(lines)


def unwrapped(text: str) -> str:
    """Markdown with each paragraph on one line, as web editors want it."""
    blocks = text.split("\n\n")
    prose = [not block.startswith(("|", "`" * 3, "1. ")) for block in blocks]
    return "\n\n".join(
        " ".join(block.splitlines()) if is_prose else block
        for block, is_prose in zip(blocks, prose, strict=True)
    )


def hours_of(plan: Mapping[str, Any]) -> dict[str, float]:
    """How the likely session is spent, in the reader's words."""
    return {title: plan["hours_by_stage"][name] for name, title in COLUMNS.items()}


def writeup(results: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """The text, as Markdown."""
    run = profiles.read_run({"PROFILE": "kaggle"}, "cpu")
    last, first = results["evaluation"]["after_grpo"], results["evaluation"]["stock"]
    gain = last["accuracy"] - first["accuracy_lenient"]
    hours = ", ".join(f"{name} {length:.2f} h" for name, length in hours_of(plan).items())
    cautious = plan["cautious"]
    traps = "\n".join(f"{number}. {text}" for number, text in enumerate(TRAPS, 1))
    return f"""# Gemma, show your work

![](idea.png)

**In five sentences.** Stock Gemma answers at once, or reasons in whatever form it likes. A short
LoRA warm start shows it one form, `<reasoning>…</reasoning><answer>…</answer>`. GRPO then rewards
answers that exact checkers find right, and nothing that is out of format. On the tiny model it
finds, in three seeds of four, that a value may be given where a letter was guessed. One notebook
does it all in Tunix, in one session on a TPU v5e-8; it also runs on a CPU in minutes, and every
score below is from there.

## How the nine hours are spent

![](plan.png)

{hours}. Least times are figures of the TPU's compiler, which was asked for the programs
(`scripts/preflight.py`). What share of that speed is reached, and all else, is assumed from what
others published (`scripts/tpu/assumptions.py`): {plan["sft_tokens"] / 1e6:.0f} million tokens of
SFT, then likely {plan["grpo_steps"]:,} updates with {plan["completions"]:,} completions, cautiously
{cautious["completions"]:,}. Nothing here was timed on a TPU.

## The prompt

```
{prompts.PROMPT_TEMPLATE.rstrip()}
```

No system text, no description of the tags. The completion ends with EOS right after `</answer>`,
where the judges' sampler stops.

## Data

{overview.sources_table([run.profile])}

Each row's gold answer passes its own checker, each row fits the token limits whole, and what
resembles a held-out row is dropped. Sources whose licence is non-commercial or not stated are off.

## Rewards

A completion out of format earns nothing. In format it earns {run.profile.rewards.in_format:g}; if
the answer is right {run.profile.rewards.right:g} more, and then up to
{run.profile.rewards.length:g} for a trace of ordinary length. Numbers are compared as fractions,
formulas by math-verify in a child process, code by its values in a sandbox. Answers without a gold
one earn up to {run.profile.rewards.open:g} by a score of named parts, which is a floor under
quality. 426 attacks on these rewards earn no more than an honest try.

## Settings

{overview.settings_table((profiles.TINY, profiles.KAGGLE))}

## Results on a CPU

{report.results_table(results)}

Both stages together gain {gain:+.3f} over the stock model's lenient accuracy (which forgives the
format), with a Gemma of 1.2 million parameters. Nothing is claimed for Gemma 3 1B before it has run
on a TPU.

## What each choice is worth

{ablations()}

## What Tunix 0.1.7 does that one must know

{traps}

## When a session ends early

Every step that begins can end in time. A save counts once it has been read back, and gets its
number by one rename. A killed run goes on at its last save and ends with the same bits as an
unbroken one (`tests/faults`). If the end is worse than an earlier save by more than chance, that
save is the submission.

## Reproduce it

`bash scripts/run.sh` runs the notebook on a CPU; on Kaggle, attach
`google/gemma-3/flax/gemma3-1b-it`, choose the TPU v5e-8, and *Save & Run All*.
"""


def draw_cover(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """A cover of 560 × 280 points: the title and the three accuracies."""
    figure, axis = plt.subplots(figsize=(5.6, 2.8), layout="constrained")
    found = results["evaluation"]
    heights = [found[name]["accuracy_lenient"] for name in report.STAGE_TITLES]
    titles = ["stock", "after SFT", "after GRPO"]
    colours = [plots.COLOURS[name] for name in report.STAGE_TITLES]
    bars = axis.barh(titles[::-1], heights[::-1], color=colours[::-1], edgecolor="black")
    axis.bar_label(bars, fmt="%.2f", padding=4)
    axis.set(xlim=(0, 1), xlabel=f"lenient accuracy, {results['model']}, held-out rows")
    axis.set_title("Gemma, show your work", fontsize=16, fontweight="bold")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="make_writeup.py", description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=pathlib.Path, help="default: outputs/results.json")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "outputs")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    path = (options.results or ROOT / "outputs" / "results.json").resolve()
    if not path.exists():
        print(f"{path} does not exist. Run `bash scripts/run.sh` first, or name --results FILE.",
              file=sys.stderr)  # fmt: skip
        return 1
    os.chdir(ROOT)  # the configuration's paths are relative to the repository
    results = json.loads(path.read_text())
    plan = json.loads((ROOT / "data" / "plan.json").read_text())
    text = writeup(results, plan)
    out.mkdir(parents=True, exist_ok=True)
    (out / "writeup.md").write_text(unwrapped(text))
    pictures.draw_idea(out / "idea.png")
    pictures.draw_plan(hours_of(plan), out / "plan.png")
    draw_cover(results, out / "cover.png")
    print(f"{out / 'writeup.md'}: {words(text)} of {MOST_WORDS} words")
    return 0 if words(text) <= MOST_WORDS else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
