# %% [markdown]
# ### Stage 1: the warm start
#
# Tunix's `PeftTrainer`, on packed rows, with the chunked loss: the mean over the tokens of the
# targets, their EOS included. A step of the `tiny` profile takes less than half of the time that
# one padded example per row and Tunix's loss take for as many examples (`scripts/benchmark.py`).

# %%
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

from flax import nnx
from jax.sharding import Mesh
from tunix.models.gemma import model as gemma2_lib
from tunix.sft import peft_trainer

# %% tags=["modules-only"]
from submission.budget import Deadline, until
from submission.checkpoints import prepare_saves, saving_options
from submission.config import Run
from submission.data import Mixture, Tokens, mixed_forever, tokenize
from submission.losses import chunked_sft_loss
from submission.metrics import SilentBar, StepLog, total_seconds
from submission.model import DATA_AXES
from submission.packing import (
    PackedRows,
    packed_batches,
    packed_model_input,
    row_length,
    rows_per_update,
)
from submission.updates import make_optimizer, use_adapter_only_step

# %%
SFT_EVENTS = {
    "sft/train/loss": ("loss", 0),
    "sft/train/grad_norm": ("grad_norm", 0),
    "sft/train/learning_rate": ("learning_rate", 0),
}


SIZED = 2000  # examples from which the length of a row is chosen


def require_window(policy: nnx.Module, length: int) -> None:
    """Refuses rows that Tunix's Gemma 2 would mask wrongly.

    Its sliding window compares positions, which restart in a packed row, with places in the row,
    which do not. Nothing is lost while a row is no longer than the window. (Gemma 3's model
    compares places with places.)

    Raises:
      ValueError: it is a Gemma 2, and its window is shorter than a row.
    """
    window = policy.config.sliding_window_size
    if isinstance(policy, gemma2_lib.Gemma) and window is not None and length > window:
        raise ValueError(
            f"Packed rows of {length} tokens are longer than Gemma 2's sliding window of {window}: "
            "set `sft.length` in the profile to the window or less."
        )


def train_sft(
    policy: nnx.Module,
    tokenizer: Any,
    rows: Mixture,
    run: Run,
    mesh: Mesh,
    checkpoints: pathlib.Path,
    metrics: pathlib.Path,
    deadline: Deadline,
) -> dict[str, Any]:
    """Trains the policy's adapter in place; returns steps, seconds, tokens and history."""
    settings = run.profile.sft

    def examples() -> Iterator[Tokens]:
        return (tokenize(tokenizer, example) for example in mixed_forever(rows, run.seed))

    first = itertools.islice(examples(), SIZED if settings.shortest < settings.length else 0)
    sizes = [len(example.prompt) + len(example.target) for example in first]
    length = row_length(sizes, settings.shortest, settings.length)
    row_count = rows_per_update(settings.rows, settings.shortest, length, mesh.devices.size)
    require_window(policy, length)
    log = StepLog(metrics, "sft", settings.steps, ("loss", "grad_norm"))
    trainer = peft_trainer.PeftTrainer(
        policy,
        make_optimizer(settings.optimizer, settings.steps),
        peft_trainer.TrainingConfig(
            eval_every_n_steps=settings.steps,
            max_steps=settings.steps,
            checkpoint_root_directory=str(checkpoints / "sft"),
            checkpointing_options=saving_options(settings.save_every, keep=1),
            metrics_logging_options=log.logging_options(SFT_EVENTS),
            metrics_prefix="sft",
            data_sharding_axis=(DATA_AXES,),
        ),
    )
    trainer.with_gen_model_input_fn(packed_model_input)
    trainer.with_loss_fn(chunked_sft_loss(run.profile.vocabulary_chunk))
    prepare_saves(trainer.checkpoint_manager, checkpoints / "sft")
    use_adapter_only_step(trainer, run.profile.remat)
    trainer._pbar = SilentBar()
    trained_tokens = 0

    def batches() -> Iterator[PackedRows]:
        nonlocal trained_tokens
        stream = packed_batches(examples(), row_count, length, tokenizer.pad_id())
        for batch in itertools.islice(stream, settings.steps):
            trained_tokens += int((batch.segments > 0).sum())
            yield batch

    with mesh:
        trainer.train(log.timed(until(deadline, batches())), skip_jit=True)
    log.close()
    slots = trainer.train_steps * row_count * length
    print(f"sft: {trained_tokens / slots:.1%} of {slots:,} slots used, in rows of {length}")
    return {
        "name": "sft",
        "steps": trainer.train_steps,
        "seconds": total_seconds(log.history),
        "tokens": trained_tokens,
        "history": log.history,
    }
