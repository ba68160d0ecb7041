"""Rows for the whole run, read now or prepared before.

The run needs three sets of rows: *held out*, read first, because the other two must not give
them away; then those of *SFT* and those of *GRPO*. `scripts/download_sft_datasets.py` makes
the same three beforehand and leaves them in a folder, with a manifest: which sources, at
which commit, under which licence, how many rows were kept and why the others were not. A
profile that names the folder (`prepared`) reads it and needs no network. It gets the same
rows in the same order; a folder that was made for something else, or that has changed, is
refused.
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from submission.bench.answers.prompts import Example, example_from_mapping
from submission.bench.policy.hosts import handed_out, host_patience
from submission.bench.rows.data import Mixture, SourceCount, load_mixture, mix, source_label
from submission.bench.rows.reading import bundled_rows
from submission.bench.settings.config import Run

STAGES = ("held_out", "sft", "grpo")
MANIFEST, MANIFEST_FORMAT = "manifest.json", 2


def asked_of(run: Run, stage: str) -> dict[str, Any]:
    """What decides, beside lengths and tokenizer, which rows a stage gets, for `load_mixture`."""
    profile, is_sft = run.profile, stage == "sft"
    held_out = profile.evaluation
    sources = {"held_out": held_out.sources, "sft": run.sft_sources, "grpo": profile.grpo_sources}
    return {
        "sources": sources[stage],
        "fallback": profile.sft_fallback if is_sft else (),
        "needs_trace": is_sft,
        "minimum_kept": profile.sft.minimum_kept if is_sft else profile.minimum_prompts,
        "at_most": held_out.rows if stage == "held_out" else 1_000_000,
    }


def require_sources(run: Run) -> None:
    """Has each stage that has steps a source of rows?

    Raises:
      ValueError: names the one that has none, and the remedy.
    """
    for stage, settings in (("sft", run.profile.sft), ("grpo", run.profile.grpo)):
        if settings.steps and not asked_of(run, stage)["sources"]:
            raise ValueError(
                f"Recipe {run.recipe!r} has no rows for {stage} in profile {run.profile.name!r}: "
                "all of its sources are off. Switch one on by name (SWITCHED_ON), or add your own "
                'in the cell "Add your dataset".'
            )


def read_rows(
    run: Run,
    tokenizer: Any,
    *,
    minutes: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Mixture]:
    """The rows of each stage, read from their sources; prints what was dropped, and why.

    Raises:
      ValueError: a stage has no sources, or too few rows of one can be used.
      RuntimeError: too many sources are down.
    """
    require_sources(run)
    whole = run.profile.preparation_minutes
    given = run.minutes * run.profile.preparation_share if run.minutes else whole
    minutes = minutes or min(whole, given)
    end = clock() + 60 * minutes
    rows: dict[str, Mixture] = {}
    for stage in STAGES:
        asked = asked_of(run, stage)
        for kind in ("sources", "fallback"):  # each gets its part of a shorter time
            asked[kind] = [
                dataclasses.replace(source, minutes=source.minutes * min(1, minutes / whole))
                for source in asked[kind]
            ]
        rows[stage] = load_mixture(
            tokenizer=tokenizer,
            lengths=run.profile.lengths,
            **asked,
            shares=run.profile.mixture,
            keep_out=rows["held_out"].examples if rows else (),
            minutes=max(0.0, (end - clock()) / 60),
            clock=clock,
        )
    return rows


# **The folder.** A parquet file for each stage, with the fields of `Example` and the `group` that
# a row is drawn with; `manifest.json` is written last, so a folder without one is not finished.
# What is checked: the files' hashes, the tokenizer, the lengths, and that the sources are those
# that `config` has now. The shares are worked out anew: changing them needs no new folder.


def tokenizer_digest(tokenizer: Any) -> str:
    """The SHA-256 of a SentencePiece model, also of one that Tunix has wrapped."""
    model = getattr(tokenizer, "tokenizer", tokenizer)
    return hashlib.sha256(model.serialized_model_proto()).hexdigest()


def file_digest(path: pathlib.Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage_identity(run: Run, stage: str) -> dict[str, Any]:
    """What decides which rows a stage gets, as JSON has it: the settings, and source by source.

    The weight, the minutes and the licence of a source do not.
    """
    identity = asked_of(run, stage) | {"lengths": dataclasses.asdict(run.profile.lengths)}
    for kind in ("sources", "fallback"):
        sources, identity[kind] = identity[kind], list(map(source_label, identity[kind]))
        for label, source in zip(identity[kind], sources, strict=True):
            for name, value in dataclasses.asdict(source).items():
                if name not in ("weight", "minutes", "licence", "on"):
                    identity[f"{name} of {label}"] = value
    return json.loads(json.dumps(identity))


def manifest_fault(manifest: Mapping[str, Any], run: Run, tokenizer: Any) -> str:
    """What is wrong with a folder for this run; empty if it fits."""
    if manifest.get("format") != MANIFEST_FORMAT:
        return f"its format is {manifest.get('format')!r}, not {MANIFEST_FORMAT}"
    if manifest["tokenizer"] != tokenizer_digest(tokenizer):
        return f"its rows were counted with the tokenizer of {manifest['model']}, another one"
    for stage in STAGES:
        there = manifest["stages"][stage]["asked"]
        for name, value in stage_identity(run, stage).items():
            if there.get(name) != value:
                made_for = f"recipe {manifest['recipe']} of profile {manifest['profile']}"
                return f"{stage}: {name}: {there.get(name)} there ({made_for}), {value} here"
    return ""


def load_stage(folder: pathlib.Path, manifest: Mapping[str, Any], run: Run, stage: str) -> Mixture:
    """The rows of one stage from a folder whose manifest fits.

    Raises:
      OSError, ValueError: the file is missing, or is not what the manifest says.
    """
    path = folder / f"{stage}.parquet"
    if file_digest(path) != manifest["files"][path.name]["sha256"]:
        raise ValueError(f"{path.name} has changed since it was prepared")
    # Sources that stand behind others have an entry only if they were read.
    entries = {entry["name"]: entry for entry in manifest["stages"][stage]["sources"]}
    groups: dict[str, list[Example]] = {name: [] for name in entries}
    for where, row in bundled_rows(path):
        groups[row["group"]].append(example_from_mapping(row, where))
    counts, asked = [], asked_of(run, stage)
    for source in (*asked["sources"], *asked["fallback"]):
        if entry := entries.get(source_label(source)):
            source = dataclasses.replace(source, revision=entry["revision"])
            read = (entry[name] for name in ("kept", "dropped", "trouble"))
            counts.append(SourceCount(source, *read))
            print(counts[-1])
    return mix(groups, counts, dataclasses.replace(run.profile.mixture, least=0.0))


def load_prepared(run: Run, tokenizer: Any) -> dict[str, Mixture]:
    """The rows of each stage, from the folder that the profile names.

    Raises:
      ValueError: a part of the folder is missing, has changed, or was made for another run; says
        which, and what to do.
    """
    folder = pathlib.Path(run.profile.prepared)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if wrong := manifest_fault(manifest, run, tokenizer):
            raise ValueError(f"{MANIFEST}: it was not prepared for this run: {wrong}")
        return {stage: load_stage(folder, manifest, run, stage) for stage in STAGES}
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The rows in {folder} cannot be used: {type(error).__name__}: {error}. Prepare the "
            "folder again with scripts/download_sft_datasets.py, or leave `prepared` empty in the "
            "profile to read the sources themselves."
        ) from error


def rows_of_run(run: Run, tokenizer: Any) -> dict[str, Mixture]:
    """The rows of each stage: `held_out`, `sft` and `grpo`."""
    make = load_prepared if run.profile.prepared else read_rows
    seconds = 60 * run.profile.preparation_minutes + host_patience()
    return handed_out(lambda: make(run, tokenizer), pathlib.Path(run.out), "the rows", seconds)
