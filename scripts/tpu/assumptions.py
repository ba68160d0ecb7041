"""What the plan takes from elsewhere than the TPU's compiler, each number with its source.

The *likely* number is what was measured in the layout that is most like ours; the *cautious* one is
the worst that was measured, or that the profile admits. Names such as `owner/name` are public
repositories on GitHub whose notebooks and logs show runs on a v5e; nothing there is ours.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Assumption:
    """One number in two cases."""

    likely: float
    cautious: float  # never the better one
    unit: str
    source: str
    more_is_better: bool = False


LOGS = (
    "logs of hazardscarn/google-tunix-kaggle, matthewspeciale/tunix-hack and other sessions on "
    "Kaggle's v5e-8: "
)
ASSUMPTIONS = {
    # --- Speed ---
    "passes": Assumption(
        0.41, 0.30, "of the roofline's speed, in updates and log-probabilities",
        "deep-diver/tunix-accel, 270M LoRA on one chip, where no weight travels, as in our layout: "
        "16 x 512 tokens in 0.108 s are 41 % of the peak; with the loss in chunks of 512 tokens "
        "0.141 s, which its recomputed logits account for. Cautious: in chunks of 128, 0.196 s. "
        "(Of the 1B in slices over the chips 10 to 15 % are published: there weights travel.)",
        more_is_better=True,
    ),
    "decoding": Assumption(
        0.50, 0.38, "of the roofline's speed, in rollouts",
        "k0valik/kaggle-tpu-lab, vLLM: 66 % of what reading the weights allows with one stream, "
        "47 % with 16. Cautious: 47 %, and beside it the 100 us a layer that launches take in "
        "YLiu95/kaggle-tpu-inference: of a step's 5.2 ms, 38 % are left. Nobody has published 128 "
        "sequences a chip.",
        more_is_better=True,
    ),
    "shortest": Assumption(
        0.0, 0.5, "of the limit; completions are spread evenly from there to the limit",
        "1B completions on GSM8K have 215 tokens on average (ritwikareddykancharla/"
        "google-tunix-hack), stories more: evenly spread, 384 of 768. Cautious: the warm start's "
        "traces are the shortest 2 % of glaive's, so most lie in the upper half. All at the limit "
        "they cannot stay: a completion that is cut earns nothing, and past 0.97 of the limit, on "
        "average, the run goes back to a save.",
    ),
    "rewards": Assumption(
        2.0, 3.0, "seconds an update, on the host",
        "measured here, one core: 1,024 completions in 1.1 s, with 570 words each in up to 2 s "
        "(tests/answers/test_reward_properties.py); the host has more cores, and slower ones",
    ),
    "host": Assumption(
        1.0, 2.0, "seconds an update beside that: tokens, metrics, Tunix's own work",
        "rohan-patil-ai/Google-Tunix-Hackathon: 1.54 s an update of the 2B with eight completions, "
        "computing included",
    ),
    "save": Assumption(
        15.0, 15.0, "seconds a save",
        LOGS + "Orbax waited 82.6 s at the longest, for a full 2B: 63 MB/s; here 0.9 GB of adapter "
        "and optimizer",
    ),
    "evaluation_step": Assumption(
        0.0196, 0.0392, "seconds a decode step of Tunix's sampler",
        "hazardscarn/google-tunix-kaggle: 1,000 rows, 32 at a time, in 1,126 s: 19.6 ms if each "
        "batch ran to its 1,792 tokens; cautious: twice that, if they ended half-way",
    ),
    "evaluation_checks": Assumption(
        8.0, 16.0, "seconds for the answers of an evaluation",
        "measured here, one core: the 1,680 answers of data/reward_cases.jsonl in 4 s",
    ),
    "compiling": Assumption(
        0.3, 0.6, "of the seconds that the compiler takes here, on one core",
        "deep-diver/tunix-accel: a first SFT step of the 1B takes 38 to 44 s there; ours, which "
        "recomputes, 206 s here: 0.21. Tracing is Python's and gains less. Cautious: twice that.",
    ),
    "judged": Assumption(
        0.5, 1.0, "looks of a judge at each completion, on average (no other recipe has one)",
        "measured here: by the square root of their rows, open rows (stories, dolly) are 37 % "
        "of the mixture, with one line of the rubric or two. Cautious: one for every completion.",
    ),
    # --- Before the first update ---
    "installation": Assumption(
        50.0, 65.0, "seconds",
        LOGS + "31 to 65 s; measured here, our pins over four sets of packages of Kaggle's image: "
        "34 to 64 s",
    ),
    "imports": Assumption(
        27.0, 31.0, "seconds", LOGS + "22 to 31 s"
    ),
    "attaching": Assumption(
        1.0, 1.0, "seconds", LOGS + "0.7 s, if the model is an input of the notebook"
    ),
    "loading": Assumption(
        44.0, 60.0, "seconds",
        LOGS + "30 to 58 s for the 1B, 60 s for the 2B",
    ),
    "traces": Assumption(
        330.0, 720.0, "seconds for the rows of SFT",
        "measured here on rows of glaive's lengths, 6,400 a second and core: 20,000 kept rows in 3 "
        "to 8 minutes if 1 to 2 % fit. Cautious: the profile ends it after 12 minutes.",
    ),
    "small_source": Assumption(
        3.5, 7.0, "seconds for each other source",
        LOGS + "GSM8K from the hub in 3.5 s; cautious: twice that",
    ),
    "tokenising": Assumption(
        88.0, 88.0, "seconds, 24,000 rows",
        LOGS + "70,000 rows, longer than ours, in 256 s",
    ),
}  # fmt: skip
