"""Prepare the rows of a run offline, into a folder that the notebook can read.

The same functions that the notebook uses read the sources, filter by the model's tokenizer,
drop duplicates and rows that give away held-out ones. What is left goes to ``sft.parquet``,
``grpo.parquet`` and ``held_out.parquet``, and ``manifest.json`` says where it is from: sources,
commits, licences, counts by reason, hashes, versions. A profile of ``config`` whose ``prepared``
names the folder reads these rows, in this order, and needs no network.

    python scripts/download_sft_datasets.py --out rows                     # profile kaggle
    python scripts/download_sft_datasets.py --out rows --tokenizer tokenizer.model
    python scripts/download_sft_datasets.py --out rows --profile tiny      # bundled rows, seconds
    python scripts/download_sft_datasets.py --out rows --recipe zero_cost  # another recipe's rows
    SWITCHED_ON=sciq,xsum python scripts/download_sft_datasets.py --out rows

Sources whose licence is non-commercial or unstated are read only if they are switched on by
name, as in the last line; the notebook must then have them switched on too.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import shutil
import sys
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece

from submission.bench.rows import prepared
from submission.bench.rows.data import SourceCount, source_label
from submission.essay import (
    domains,  # noqa: F401 - they register adapters and checkers
    profiles,
    recipes,
    robotics,  # noqa: F401
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("datasets", "huggingface_hub", "pyarrow", "sentencepiece", "google-tunix")


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--profile", default="kaggle")
    parser.add_argument("--recipe", default="")
    parser.add_argument("--model", default="", help="its tokenizer counts; default: the profile's")
    parser.add_argument("--tokenizer", type=pathlib.Path, metavar="FILE", help="instead of a model")
    parser.add_argument("--minutes", type=float, default=None, help="for all sources together")
    return parser.parse_args(arguments)


def find_tokenizer(options: argparse.Namespace, run: Any) -> pathlib.Path:
    """The tokenizer's file: the one given, or that of the run's model, downloaded if need be."""
    if options.tokenizer:
        if not options.tokenizer.exists():
            raise FileNotFoundError(f"{options.tokenizer} does not exist.")
        return options.tokenizer
    from submission.bench.policy.model import locate  # it needs all of JAX

    return locate(run.model, run.profile.download_minutes) / "tokenizer.model"


def write_rows(path: pathlib.Path, mixture: Any) -> dict[str, Any]:
    """Writes the rows of a stage, source after source; what the manifest says of the file."""
    rows = [
        {"group": name, **dataclasses.asdict(example)}
        for name, examples in mixture.groups.items()
        for example in examples
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return {"sha256": prepared.file_digest(path), "rows": len(rows)}


def describe_source(count: SourceCount) -> dict[str, Any]:
    """What the manifest says of a source; a file has no commit, but a digest."""
    source = count.source
    path = pathlib.Path(source.location)
    return {
        "name": source_label(source),
        "id": source.location,
        "config": source.subset,
        "split": source.split,
        "revision": source.revision,
        "sha256": prepared.file_digest(path) if path.is_file() else None,
        "licence": source.licence,
        "read": count.read,
        "kept": count.kept,
        "dropped": dict(sorted(count.dropped.items())),
        "trouble": count.trouble,
    }


def prepare(options: argparse.Namespace) -> None:
    """Reads, filters and writes; the folder appears only when it is complete.

    Raises:
      ValueError, OSError, RuntimeError: the folder is not empty, the options do not fit, or too
        little could be read.
    """
    start = time.monotonic()
    out = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder. Name another, or remove it.")
    asked = {"PROFILE": options.profile, "RECIPE": options.recipe, "MODEL": options.model}
    if options.recipe in recipes.RECIPES and recipes.RECIPES[options.recipe].continues:
        asked["START_FROM"] = "outputs"  # its adapter is not needed for its rows
    run = profiles.read_run(asked, platform="cpu")
    tokenizer_file = find_tokenizer(options, run)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file))
    mixtures = prepared.read_rows(run, tokenizer, minutes=options.minutes)

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    names = {stage: f"{stage}.parquet" for stage in mixtures}
    manifest = {
        "format": prepared.MANIFEST_FORMAT,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "profile": run.profile.name,
        "recipe": run.recipe,
        "model": options.tokenizer.name if options.tokenizer else run.model.name,
        "tokenizer": prepared.tokenizer_digest(tokenizer),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "files": {names[s]: write_rows(partial / names[s], rows) for s, rows in mixtures.items()},
        "stages": {
            stage: {
                "asked": prepared.stage_identity(run, stage),
                "sources": [describe_source(count) for count in mixture.counts],
            }
            for stage, mixture in mixtures.items()
        },
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (partial / prepared.MANIFEST).write_text(text, encoding="utf-8")
    if out.exists():
        out.rmdir()
    partial.rename(out)


def main(arguments: list[str] | None = None) -> None:
    """Prepares, and says how to use what was prepared."""
    options = read_options(arguments)
    options.out = options.out.resolve()
    if options.tokenizer:
        options.tokenizer = options.tokenizer.resolve()
    os.chdir(ROOT)  # the configuration's paths are relative to the repository
    try:
        prepare(options)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"download_sft_datasets.py: {error}")
    print(f"{options.out} is ready. To use it, set `prepared` in the profile to its path.")


if __name__ == "__main__":
    main()
