"""A second model, which teaches or judges.

It is a stock Gemma, on the chips of the policy or on some of its own, with a trained adapter or
without one, and never trained here. What it reads is what the policy wrote, so both must have the
same tokenizer.
"""

import pathlib
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from submission.bench.policy.memory import plan_memory, weight_bytes
from submission.bench.policy.model import (
    add_adapter,
    load_stock,
    load_tokenizer,
    locate,
    make_mesh,
)
from submission.bench.run.checkpoints import find_step, restore_adapter
from submission.bench.settings.config import Run


def pieces(tokenizer: Any) -> list[str]:
    """All pieces of a SentencePiece tokenizer, by their ids."""
    processor = tokenizer.tokenizer
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


def require_helper(run: Run, tokenizer: Any) -> None:
    """Is the recipe's second model here, and does it read as the policy writes?

    Raises:
      ValueError: the profile names none, or its tokenizer is another one.
      FileNotFoundError: a part of it is missing.
    """
    helper = run.profile.helper
    if helper is None:
        raise ValueError(f"Recipe {run.recipe!r} has no second model in profile "
                         f"{run.profile.name!r}: give it a `helper`.")  # fmt: skip
    folder = locate(helper.model, run.profile.download_minutes)
    if pieces(load_tokenizer(folder)) != pieces(tokenizer):
        raise ValueError(
            f"{helper.model.name} has another tokenizer than {run.model.name}: it cannot read what "
            "the policy writes. Choose a `helper` of the same family."
        )
    if helper.step:
        find_step(pathlib.Path(helper.step))


def helper_mesh(run: Run, mesh: Mesh) -> Mesh:
    """The second model's chips, with it whole on each or, if it must be, in slices.

    They are the policy's, whose mesh is given, unless it has some of its own.
    """
    chip, apart = run.profile.chip, run.profile.helper.chips
    if apart:
        room = chip.memory_gib * (1 - chip.spare) * 2**30 / 2  # the other half is for its passes
        whole = weight_bytes(run.profile.helper.model) <= room
        return make_mesh(whole, jax.devices()[-apart:])
    whole = plan_memory(run, mesh.devices.size).helper_whole
    return mesh if whole else make_mesh(False, mesh.devices.flatten())


def load_helper(run: Run, mesh: Mesh) -> nnx.Module:
    """The recipe's second model, on its own mesh of the policy's chips."""
    helper, mesh = run.profile.helper, helper_mesh(run, mesh)
    model = load_stock(helper.model, locate(helper.model, run.profile.download_minutes), mesh)
    if helper.adapter is not None:
        model = add_adapter(model, helper.adapter, 0, mesh)
        restore_adapter(model, find_step(pathlib.Path(helper.step)))
    return model
