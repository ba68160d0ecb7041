"""A second model, which teaches or judges.

It is a stock Gemma on the chips of the policy, with a trained adapter or without one, and never
trained here. What it reads is what the policy wrote, so both must have the same tokenizer.
"""

import pathlib
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from submission.bench.policy.model import add_adapter, load_stock, load_tokenizer, locate
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


def load_helper(run: Run, mesh: Mesh) -> nnx.Module:
    """The recipe's second model, on the mesh."""
    helper = run.profile.helper
    model = load_stock(helper.model, locate(helper.model, run.profile.download_minutes), mesh)
    if helper.adapter is not None:
        model = add_adapter(model, helper.adapter, 0, mesh)
        restore_adapter(model, find_step(pathlib.Path(helper.step)))
    return model
