"""Tables of the configuration, printed from it, so that they say what a run does."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from submission.bench.rows.data import source_label
from submission.bench.settings.config import Profile, Source


def settings_of_profile(profile: Profile) -> list[tuple[str, str, str]]:
    """The settings that matter: name, value, reason."""
    sft, grpo, rewards = profile.sft, profile.grpo, profile.rewards
    lengths, adapter, adam = profile.lengths, profile.adapter, profile.grpo.optimizer
    sizes = f"{sft.rows} × {sft.shortest:,}"
    if sft.shortest < sft.length:
        sizes += f", or fewer of up to {sft.length:,}"
    weights = (rewards.in_format, rewards.right, rewards.length, rewards.open)
    return [
        ("model", profile.model.name, "where training starts; `tiny` has one of our own"),
        ("adapter", f"LoRA, rank {adapter.rank}, alpha {adapter.alpha:g}",
         "on attention and MLP; the base stays frozen, and all roles share it"),
        ("tokens: prompt + completion", f"{lengths.prompt} + {lengths.completion}",
         "the judges read about 1,000"),
        ("SFT: updates, at most", f"{sft.steps}", "the format is learned early"),
        ("SFT: of the time, at most", f"{profile.sft_share:g}", "the time belongs to GRPO"),
        ("SFT: rows × tokens", sizes, "packed; which of two sizes, the examples decide"),
        ("SFT: peak rate", f"{sft.optimizer.peak_rate:g}", "warm-up, then cosine to a tenth"),
        ("GRPO: updates, at most", f"{grpo.steps:,}", "on the TPU, the clock ends it before"),
        ("GRPO: prompts × completions", f"{grpo.prompts} × {grpo.generations}",
         "a decode step reads all weights, however many sequences there are"),
        ("GRPO: peak rate", f"{adam.peak_rate:g}", "lower than that of SFT: it moves on noise"),
        ("GRPO: KL weight", f"{grpo.beta:g}", "a light pull towards the warm start"),
        ("GRPO: temperature", f"{grpo.temperature:g}",
         "and no top-k, no top-p: what is sampled is what is trained"),
        ("GRPO: updates per rollout", f"{grpo.iterations}", "on-policy: the clip stays idle"),
        ("Adam: b1, b2", f"{adam.b1:g}, {adam.b2:g}", "a short memory for a short run"),
        ("Adam: clip of the norm", f"{adam.clip_norm:g}", "one odd batch does no harm"),
        ("reward: format, right, length, open", ", ".join(f"{x:g}" for x in weights),
         "the format is a gate; being right is nearly all"),
        ("reward: words of a trace", f"{rewards.shortest} to {rewards.longest}",
         "within, the length pays in full, if the answer is right"),
        ("saves: updates of SFT, of GRPO; minutes",
         f"{sft.save_every}, {grpo.save_every}; {profile.save_minutes:g}",
         "whichever comes first: so much can be lost at most"),
    ]  # fmt: skip


def settings_table(profiles: Sequence[Profile]) -> str:
    """The settings of profiles side by side, with their reasons, as Markdown."""
    columns = [settings_of_profile(profile) for profile in profiles]
    names = " | ".join(f"`{profile.name}`" for profile in profiles)
    lines = [f"| setting | {names} | reason |", "|---" * (len(profiles) + 2) + "|"]
    for rows in zip(*columns, strict=True):
        values = " | ".join(value for _, value, _ in rows)
        lines.append(f"| {rows[0][0]} | {values} | {rows[0][2]} |")
    return "\n".join(lines)


def sources_of(profile: Profile) -> list[tuple[str, Sequence[Source]]]:
    """Which sources are for what."""
    warm_start = profile.sft_sources.get(profile.warm_start, ()) if profile.sft.steps else ()
    return [
        ("SFT", warm_start),
        ("SFT, if that is down", profile.sft_fallback if warm_start else ()),
        ("GRPO", profile.grpo_sources),
        ("evaluation", profile.evaluation.sources),
    ]


def sources_table(profiles: Sequence[Profile]) -> str:
    """Where the rows of the profiles come from, as Markdown."""
    lines = ["| profile | source | for | domain | licence |", "|---|---|---|---|---|"]
    for profile in profiles:
        for stage, sources in sources_of(profile):
            for source in sources:
                where = " ".join((*source.select, source.subset or "", source.split)).strip()
                bundled = source.adapter == "bundled"
                domain = "by row" if bundled else source.domain
                licence = f"{source.licence}, made for this" if bundled else source.licence
                what = f"{source.location} ({where}) | {stage} | {domain} | {licence}"
                lines.append(f"| `{profile.name}` | {what} |")
    return "\n".join(lines)


def mixture_table(rows: Mapping[str, Any], tokenizer: Any, looked_at: int = 500) -> str:
    """What was read and kept: rows, drops, shares and lengths by source, as Markdown.

    Args:
      rows: the `Mixture` of each stage.
      tokenizer: the model's own.
      looked_at: rows of each source, the first ones, whose lengths are measured.
    """
    names = "for|source|licence|read|dropped|rows|share|question, tokens|trace, tokens".split("|")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]

    def median(texts: Sequence[str]) -> str:
        found = [len(tokenizer.encode(text)) for text in texts if text]
        return f"{statistics.median(found):.0f}" if found else "–"

    for stage, mixture in rows.items():
        for count in mixture.counts:
            label = source_label(count.source)
            first = mixture.groups.get(label, ())[:looked_at]
            dropped = ", ".join(f"{n:,} {reason}" for reason, n in count.dropped.items())
            lines.append(
                f"| {stage} | {label} | {count.source.licence} | {count.read:,} | "
                f"{'; '.join(filter(None, (dropped, count.trouble))) or '–'} | {count.kept:,} | "
                f"{mixture.shares.get(label, 0):.0%} | {median([e.question for e in first])} | "
                f"{median([e.trace for e in first])} |"
            )
    return "\n".join(lines)
