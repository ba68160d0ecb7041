"""Prepare the rows of a run offline, into a folder that the notebook can read.

The same functions that the notebook uses read the sources, filter by the model's tokenizer,
drop duplicates and rows that give away held-out ones. What is left goes to ``sft.parquet``,
``grpo.parquet`` and ``held_out.parquet``, and ``manifest.json`` says where it is from: sources,
commits, licences, counts by reason, hashes, versions. A profile of ``config`` whose ``prepared``
names the folder reads these rows, in this order, and needs no network.

    python scripts/download_sft_datasets.py --out rows                     # profile kaggle
    python scripts/download_sft_datasets.py --out rows --tokenizer tokenizer.model
    python scripts/download_sft_datasets.py --out rows --switch-on sciq,xsum
    python scripts/download_sft_datasets.py --out rows --profile tiny      # bundled rows, seconds

Sources whose licence is non-commercial or unstated are read only if switched on by name; the
notebook must then have them switched on too (``SWITCHED_ON``).
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
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

from submission.essay import profiles

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

PACKAGES = ("datasets", "huggingface_hub", "pyarrow", "sentencepiece", "google-tunix")
SCHEMA = pa.schema(
    [
        ("group", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("checker", pa.string()),
        ("trace", pa.string()),
        ("domain", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("tests", pa.list_(pa.string())),
        ("difficulty", pa.float64()),
        ("source", pa.string()),
    ]
)


class PreparationError(Exception):
    """The rows cannot be prepared; the message says why."""


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
    parser.add_argument("--switch-on", default="", metavar="NAME,…", help="sources that are off")
    parser.add_argument("--minutes", type=float, default=None, help="for all sources together")
    parser.add_argument("--seed", type=int, default=0, help="of the run; rows do not depend on it")
    return parser.parse_args(arguments)


def find_run(options: argparse.Namespace) -> Any:
    """The run that the options ask for.

    Raises:
      PreparationError: an unknown profile, recipe, model or source.
    """
    # The configuration reads this when it is imported.
    if options.switch_on:
        os.environ["SWITCHED_ON"] = options.switch_on
    try:
        from submission.bench.settings import config
    except ValueError as error:
        raise PreparationError(str(error)) from error
    for name in (part.strip() for part in options.switch_on.split(",") if part.strip()):
        if name not in profiles.SOURCES:
            raise PreparationError(
                f"There is no source {name!r}. There are: {', '.join(profiles.SOURCES)}."
            )
        if not profiles.SOURCES[name].on and name not in profiles.SWITCHED_ON:
            raise PreparationError(
                f"The source {name!r} is off ({profiles.SOURCES[name].licence}). Switch it on in "
                "the environment: SWITCHED_ON."
            )
    environment = {
        "PROFILE": options.profile,
        "RECIPE": options.recipe,
        "RUN_SEED": str(options.seed),
    }
    try:
        run = profiles.read_run(environment, platform="cpu")
        if options.model:
            stock = config.pick("model", options.model, profiles.STOCK_MODELS)
            profile = dataclasses.replace(run.profile, model=stock)
            run = dataclasses.replace(run, profile=profile)
    except ValueError as error:
        raise PreparationError(str(error)) from error
    return run


def find_tokenizer(options: argparse.Namespace, run: Any) -> pathlib.Path:
    """The tokenizer's file: the one given, or that of the run's model, downloaded if need be."""
    if options.tokenizer:
        if not options.tokenizer.exists():
            raise PreparationError(f"{options.tokenizer} does not exist.")
        return options.tokenizer
    if run.model.folder:
        return ROOT / run.model.folder / "tokenizer.model"
    from submission.bench.policy.model import locate

    return locate(run.model, run.profile.download_minutes) / "tokenizer.model"


def pin(source: Any) -> Any:
    """The source at the commit it has now. One that does not answer is left as it is."""
    from submission.bench.rows.reading import TRANSIENT, SourceDown, resolve_revision

    try:
        revision = resolve_revision(source)
    except (SourceDown, *TRANSIENT) as error:
        print(f"{source.location}: no commit found ({error})")
        return source
    return source if revision == "local" else dataclasses.replace(source, revision=revision)


def pinned(run: Any) -> Any:
    """The run with all its sources pinned, each looked up once."""
    from submission.essay.profiles import RECIPES

    pin_once = functools.cache(pin)

    def all_pinned(sources: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(map(pin_once, sources))

    profile = run.profile
    evaluation = dataclasses.replace(
        profile.evaluation, sources=all_pinned(profile.evaluation.sources)
    )
    key = RECIPES[run.recipe].sft
    return dataclasses.replace(
        run,
        profile=dataclasses.replace(
            profile,
            evaluation=evaluation,
            sft_sources={**profile.sft_sources, key: all_pinned(run.sft_sources)},
            grpo_sources=all_pinned(profile.grpo_sources),
        ),
    )


def write_rows(path: pathlib.Path, mixture: Any) -> None:
    """The rows of a stage, source after source."""
    rows = [
        {"group": name, **dataclasses.asdict(example)}
        for name, examples in mixture.groups.items()
        for example in examples
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)


def describe_source(asked: Any, read: Any, count: Any) -> dict[str, Any]:
    """What the manifest says of a source."""
    from submission.bench.rows.data import source_label
    from submission.bench.rows.prepared import file_digest, source_identity

    path = pathlib.Path(asked.location)
    return {
        "name": source_label(asked),
        "id": asked.location,
        "config": asked.subset,
        "split": asked.split,
        "revision": f"sha256:{file_digest(path)}" if path.is_file() else read.revision,
        "licence": asked.licence,
        "asked": source_identity(asked),
        "read": count.read,
        "kept": count.kept,
        "dropped": dict(sorted(count.dropped.items())),
        "trouble": count.trouble,
    }


def describe_stage(asked: Any, read: Any, stage: str, mixture: Any) -> dict[str, Any]:
    """What the manifest says of a stage."""
    from submission.bench.rows.prepared import stage_settings, stage_sources

    return {
        "settings": stage_settings(asked, stage),
        "sources": [
            describe_source(*triple)
            for triple in zip(
                stage_sources(asked, stage), stage_sources(read, stage), mixture.counts, strict=True
            )
        ],
    }


def package_versions() -> dict[str, str]:
    """The versions that the rows may depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def prepare(options: argparse.Namespace) -> pathlib.Path:
    """Reads, filters and writes; the folder appears only when it is complete.

    Raises:
      PreparationError: the folder is not empty, or the options do not fit.
    """
    start = time.monotonic()
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise PreparationError(f"{options.out} is not an empty folder. Name another, or remove it.")
    run = find_run(options)
    from submission.bench.rows.prepared import (
        MANIFEST,
        MANIFEST_FORMAT,
        file_digest,
        read_rows,
        tokenizer_digest,
    )

    tokenizer_file = find_tokenizer(options, run)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file))
    fixed = pinned(run)
    mixtures = read_rows(fixed, tokenizer, minutes=options.minutes)

    partial = options.out.with_name(options.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    files = {}
    for stage, mixture in mixtures.items():
        path = partial / f"{stage}.parquet"
        write_rows(path, mixture)
        files[path.name] = {"sha256": file_digest(path), "rows": len(mixture.examples)}
    manifest = {
        "format": MANIFEST_FORMAT,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "profile": run.profile.name,
        "recipe": run.recipe,
        "model": str(options.tokenizer.name) if options.tokenizer else run.model.name,
        "tokenizer": tokenizer_digest(tokenizer),
        "seed": run.seed,
        "packages": package_versions(),
        "files": files,
        "stages": {
            stage: describe_stage(run, fixed, stage, mixture) for stage, mixture in mixtures.items()
        },
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (partial / MANIFEST).write_text(text, encoding="utf-8")
    if options.out.exists():
        options.out.rmdir()
    partial.rename(options.out)
    return options.out


def main(arguments: list[str] | None = None) -> None:
    """Prepares, and says how to use what was prepared."""
    options = read_options(arguments)
    options.out = options.out.resolve()
    if options.tokenizer:
        options.tokenizer = options.tokenizer.resolve()
    os.chdir(ROOT)  # the configuration's paths are relative to the repository
    try:
        folder = prepare(options)
    except (PreparationError, ValueError, RuntimeError, OSError) as error:
        sys.exit(f"download_sft_datasets.py: {error}")
    print(f"{folder} is ready. To use it, set `prepared` in the profile to its path.")


if __name__ == "__main__":
    main()
