"""Rows of a reader's own."""

import dataclasses
import pathlib
from collections.abc import Sequence

from submission.bench.answers.prompts import example_from_mapping
from submission.bench.rows.adapters import ADAPTERS
from submission.bench.rows.data import source_label
from submission.bench.rows.reading import bundled_rows
from submission.bench.settings.config import Run, Source


def checked_source(source: Source, where: str) -> Source:
    """The source, if it can be read as far as can be told without a network.

    Raises:
      ValueError: says what is wrong, in which cell, and what to do.
    """
    cell = f'{where}, in the cell "Add your dataset"'
    if not isinstance(source, Source):
        raise ValueError(f"{cell}: {source!r} is not a Source(...). See its examples.")
    if source.adapter != "bundled":
        if source.adapter not in ADAPTERS:
            known = ", ".join(("bundled", *ADAPTERS))
            raise ValueError(f"{cell}: unknown adapter {source.adapter!r}. Choose one of: {known}.")
        return source
    path = pathlib.Path(source.location)
    if not path.is_file():
        raise ValueError(f"{cell}: there is no file {path}. Upload it, or correct the path.")
    try:
        for place, row in bundled_rows(path):
            example = example_from_mapping(
                {"domain": source.domain, "source": path.name, **row}, place
            )
            if where == "MY_SFT_ROWS" and not example.trace:
                raise ValueError(f"{place}: the row has no trace, which SFT needs.")
    except ValueError as error:
        raise ValueError(f"{cell}: {error} Correct the file.") from error
    return source


def joined(before: tuple[Source, ...], new: tuple[Source, ...], where: str) -> tuple[Source, ...]:
    """All of them; what is there already, as when a cell is run again, is not added twice.

    Raises:
      ValueError: the same rows are there under other settings.
    """
    new = tuple(source for source in new if source not in before)
    if twice := {*map(source_label, before)} & {*map(source_label, new)}:
        raise ValueError(f'{where}, in the cell "Add your dataset": {min(twice)} is in the mixture '
                         "already. Leave it out, or change it in SOURCES.")  # fmt: skip
    return before + new


def with_rows(run: Run, for_sft: Sequence[Source], for_grpo: Sequence[Source]) -> Run:
    """The run with further sources for each stage.

    Raises:
      ValueError: a source cannot be read; names the cell and the remedy.
    """
    sft = tuple(checked_source(source, "MY_SFT_ROWS") for source in for_sft)
    grpo = tuple(checked_source(source, "MY_GRPO_ROWS") for source in for_grpo)
    profile, key = run.profile, run.profile.warm_start
    before = profile.sft_sources.get(key, ())
    profile = dataclasses.replace(
        profile,
        sft_sources={**profile.sft_sources, key: joined(before, sft, "MY_SFT_ROWS")},
        grpo_sources=joined(profile.grpo_sources, grpo, "MY_GRPO_ROWS"),
    )
    return dataclasses.replace(run, profile=profile)
