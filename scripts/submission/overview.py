# %% tags=["modules-only"]
from submission.config import Run

# %% tags=["plumbing"]
# Printed from the configuration, so that they say what the run does.


def settings_table(run: Run) -> str:
    """The hyper-parameters of a run with a reason for each, as Markdown."""
    profile, sft, grpo = run.profile, run.profile.sft, run.profile.grpo
    lengths, adapter, rewards = profile.lengths, profile.adapter, profile.rewards
    order = f"{grpo.temperature:g}, top-k {grpo.top_k}, top-p {grpo.top_p:g}"
    rows = (
        ("model", run.model.name, "stock, instruction-tuned"),
        ("adapter", f"LoRA, rank {adapter.rank}, alpha {adapter.alpha:g}, attention and MLP",
         "the base stays frozen, and all roles share it"),
        ("tokens of prompt + completion", f"{lengths.prompt} + {lengths.completion}",
         "the judges' limit is about 1,000"),
        ("SFT: updates", f"{sft.steps} at most, a share of {profile.sft_share:g} of the time",
         "the format is learned early; the time belongs to GRPO"),
        ("SFT: rows per update", f"{sft.rows} × {sft.shortest} to {sft.length} tokens, packed",
         "no slot is left for padding"),
        ("SFT: peak rate", f"{sft.optimizer.peak_rate:g}", "warm-up, then cosine to a tenth"),
        ("GRPO: updates", f"{grpo.steps} at most", "the clock or this ends it"),
        ("GRPO: prompts × completions", f"{grpo.prompts} × {grpo.generations}",
         "a decode step reads all weights, however many sequences there are"),
        ("GRPO: peak rate", f"{grpo.optimizer.peak_rate:g}", "lower than that of SFT"),
        ("GRPO: KL weight", f"{grpo.beta:g}", "a light pull towards the warm start"),
        ("GRPO: temperature", order, "what is sampled is what is trained"),
        ("GRPO: updates per rollout", grpo.iterations, "on-policy: the clip stays idle"),
        ("Adam: b1, b2, clip", f"{grpo.optimizer.b1:g}, {grpo.optimizer.b2:g}, "
         f"{grpo.optimizer.clip_norm:g}", "a short memory for a short run"),
        ("reward: format, right, length, open",
         f"{rewards.in_format:g}, {rewards.right:g}, {rewards.length:g}, {rewards.open:g}",
         "the format is a gate; being right is nearly all"),
        ("reward: words of a trace", f"{rewards.shortest} to {rewards.longest}",
         "pays in full within, and only if the answer is right"),
        ("saves", f"every {grpo.save_every} updates, and every {profile.save_minutes:g} minutes",
         "so much can be lost at most"),
        ("seed", run.seed, "every random draw comes from it"),
    )  # fmt: skip
    lines = ["| setting | value | reason |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} | {why} |" for name, value, why in rows)])


def sources_table(run: Run) -> str:
    """Where the rows come from, as Markdown."""
    lines = ["| source | for | domain | licence |", "|---|---|---|---|"]
    stages = (
        ("SFT", run.sft_sources),
        ("GRPO", run.profile.grpo_sources),
        ("evaluation", run.profile.evaluation.sources),
    )
    for stage, sources in stages:
        for source in sources:
            parts = " ".join((*source.select, source.subset or "", source.split)).strip()
            where = f"{source.location} ({parts})"
            bundled = source.adapter == "bundled"
            domain = "by row" if bundled else source.domain
            licence = f"{source.licence}, made for this notebook" if bundled else source.licence
            lines.append(f"| {where} | {stage} | {domain} | {licence} |")
    return "\n".join(lines)
