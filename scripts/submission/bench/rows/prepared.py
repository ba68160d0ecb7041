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

import pyarrow.parquet as pq

from submission.bench.answers.prompts import Example, example_from_mapping
from submission.bench.rows.data import Mixture, SourceCount, load_mixture, mix, source_label
from submission.bench.settings.config import Run, Source

STAGES = ("held_out", "sft", "grpo")
MANIFEST, MANIFEST_FORMAT = "manifest.json", 1
PREPARE_AGAIN = (
    "Prepare the folder again with scripts/download_sft_datasets.py, or leave `prepared` empty "
    "in the profile to read the sources themselves."
)


def stage_sources(run: Run, stage: str) -> tuple[Source, ...]:
    """The sources that a stage draws from."""
    return {
        "held_out": run.profile.evaluation.sources,
        "sft": run.sft_sources,
        "grpo": run.profile.grpo_sources,
    }[stage]


def stage_settings(run: Run, stage: str) -> dict[str, Any]:
    """What decides, beside sources and tokenizer, which rows a stage gets."""
    profile, is_sft = run.profile, stage == "sft"
    return {
        "lengths": dataclasses.asdict(profile.lengths),
        "needs_trace": is_sft,
        "minimum_kept": profile.sft.minimum_kept if is_sft else profile.minimum_prompts,
        "at_most": profile.evaluation.rows if stage == "held_out" else 1_000_000,
    }


def read_rows(
    run: Run,
    tokenizer: Any,
    *,
    minutes: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Mixture]:
    """The rows of each stage, read from their sources; prints what was dropped, and why.

    Raises:
      ValueError: too few rows of a source can be used.
      RuntimeError: too many sources are down.
    """
    end = clock() + 60 * (minutes or run.profile.preparation_minutes)
    rows: dict[str, Mixture] = {}
    for stage in STAGES:
        settings = stage_settings(run, stage)
        rows[stage] = load_mixture(
            stage_sources(run, stage),
            tokenizer,
            run.profile.lengths,
            needs_trace=settings["needs_trace"],
            minimum_kept=settings["minimum_kept"],
            at_most=settings["at_most"],
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


def source_identity(source: Source) -> dict[str, Any]:
    """What decides which rows a source gives; not its weight, its minutes or its licence."""
    fields = dataclasses.asdict(source) | {"select": list(source.select)}
    return {
        name: value
        for name, value in fields.items()
        if name not in ("weight", "minutes", "licence", "on")
    }


def first_difference(asked: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The first entry that differs, in words; empty if none does.

    >>> first_difference({"prompt": 256, "completion": 768}, {"prompt": 48, "completion": 768})
    'prompt is 48 there, 256 here'
    """
    for name in asked:
        if found.get(name) != asked[name]:
            return f"{name} is {found.get(name)!r} there, {asked[name]!r} here"
    return ""


def manifest_fault(manifest: Mapping[str, Any], run: Run, tokenizer: Any) -> str:
    """What is wrong with a folder for this run; empty if it fits."""
    if manifest.get("format") != MANIFEST_FORMAT:
        return f"its format is {manifest.get('format')!r}, not {MANIFEST_FORMAT}"
    if manifest["tokenizer"] != tokenizer_digest(tokenizer):
        return f"its rows were counted with the tokenizer of {manifest['model']}, another one"
    for stage in STAGES:
        there = manifest["stages"][stage]
        if found := first_difference(stage_settings(run, stage), there["settings"]):
            return f"{stage}: {found}"
        asked = {source_label(s): source_identity(s) for s in stage_sources(run, stage)}
        names = [entry["name"] for entry in there["sources"]]
        if list(asked) != names:
            recipe = f"recipe {manifest['recipe']} of profile {manifest['profile']}"
            return f"{stage} has {names} there ({recipe}), {list(asked)} here"
        for entry in there["sources"]:
            if found := first_difference(asked[entry["name"]], entry["asked"]):
                return f"{stage}, {entry['name']}: {found}"
    return ""


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
      FileNotFoundError: the folder has none.
      ValueError: it is not JSON.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: was the folder finished? {PREPARE_AGAIN}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}). {PREPARE_AGAIN}") from error


def load_stage(folder: pathlib.Path, manifest: Mapping[str, Any], run: Run, stage: str) -> Mixture:
    """The rows of one stage from a folder whose manifest fits.

    Raises:
      FileNotFoundError, ValueError: the file is missing, or is not what the manifest says.
    """
    path = folder / f"{stage}.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. {PREPARE_AGAIN}")
    if file_digest(path) != manifest["files"][path.name]["sha256"]:
        raise ValueError(f"{path} has changed since it was prepared. {PREPARE_AGAIN}")
    entries = manifest["stages"][stage]["sources"]
    groups: dict[str, list[Example]] = {entry["name"]: [] for entry in entries}
    for number, row in enumerate(pq.read_table(path).to_pylist(), 1):
        groups[row["group"]].append(example_from_mapping(row, f"{path}, row {number}"))
    counts = [
        SourceCount(source, entry["kept"], entry["dropped"], entry["trouble"])
        for source, entry in zip(stage_sources(run, stage), entries, strict=True)
    ]
    for count in counts:
        print(count)
    return mix(groups, counts, run.profile.mixture)


def load_prepared(run: Run, tokenizer: Any) -> dict[str, Mixture]:
    """The rows of each stage, from the folder that the profile names.

    Raises:
      FileNotFoundError, ValueError: a part of the folder is missing, has changed, or was made
        for another run; says which, and what to do.
    """
    folder = pathlib.Path(run.profile.prepared)
    manifest = read_manifest(folder)
    if wrong := manifest_fault(manifest, run, tokenizer):
        raise ValueError(f"{folder} was not prepared for this run: {wrong}. {PREPARE_AGAIN}")
    return {stage: load_stage(folder, manifest, run, stage) for stage in STAGES}


def rows_of_run(run: Run, tokenizer: Any) -> dict[str, Mixture]:
    """The rows of each stage: `held_out`, `sft` and `grpo`."""
    return (load_prepared if run.profile.prepared else read_rows)(run, tokenizer)
