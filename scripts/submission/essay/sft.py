# %% [markdown]
# ### SFT, the warm start
#
# Tunix's `PeftTrainer` on packed rows: several examples in each row, which do not see each other. The
# loss is the mean over the tokens of the targets, their EOS included; prompts are masked.

# %%
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from flax import nnx
from tunix.sft import peft_trainer

# %% tags=["modules-only"]
from submission.bench.run.budget import Deadline
from submission.bench.rows.data import Mixture, token_stream
from submission.bench.policy.losses import chunked_sft_loss
from submission.bench.policy.model import DATA_AXES, require_window
from submission.bench.rows.packing import (
    PackedRows,
    packed_batches,
    packed_model_input,
    row_length,
    tokens_of,
    rows_per_update,
    updates_of,
)
from submission.bench.run.stages import (
    Session,
    Stage,
    finished_stage,
    no_stage,
    restore_warm_start,
)
from submission.bench.policy.updates import make_optimizer


# %%
def train_sft(
    policy: nnx.Module, tokenizer: Any, rows: Mixture, session: Session, deadline: Deadline
) -> dict[str, Any]:
    """Trains the policy's adapter in place; returns steps, seconds, tokens and history."""
    run, folder = session.run, session.folder
    settings, pad_id = run.profile.sft, tokenizer.pad_id()
    if not settings.steps:  # the run goes on from an earlier one
        return no_stage("sft")
    if (report := finished_stage(folder, "sft")) is not None:
        if report["steps"]:
            restore_warm_start(policy, session)
        return report
    examples = token_stream(tokenizer, rows, run.seed)
    first = list(itertools.islice(examples, min(2000, len(rows.examples))))  # they stand for all
    sizes = [example.size for example in first]
    length = row_length(sizes, settings.shortest, settings.length)
    row_count = rows_per_update(settings.rows, settings.shortest, length, session.chips)
    if settings.epochs:
        updates = updates_of(settings.epochs, len(rows.examples), sizes, row_count, length)
        settings = dataclasses.replace(settings, steps=min(settings.steps, updates))
    require_window(policy, length)
    trainer = peft_trainer.PeftTrainer(
        policy,
        make_optimizer(settings.optimizer),
        peft_trainer.TrainingConfig(
            eval_every_n_steps=settings.steps, max_steps=settings.steps, data_sharding_axis=(DATA_AXES,)
        ),
    )  # fmt: skip
    trainer.with_gen_model_input_fn(packed_model_input)
    trainer.with_loss_fn(chunked_sft_loss(run.profile.vocabulary_chunk))
    trained_tokens = 0
    stage = Stage(
        session, "sft", settings, deadline,
        subfolder="sft", shown=("loss", "grad_norm"), keep=1,
        state=lambda: {"tokens": trained_tokens},
    )  # fmt: skip
    stage.attach(trainer, run.profile.remat)
    trained_tokens = stage.restored.get("tokens", 0)

    def batches() -> Iterator[PackedRows | None]:
        nonlocal trained_tokens
        yield from itertools.repeat(None, stage.start)  # Tunix skips what has been trained
        stream = packed_batches(itertools.chain(first, examples), row_count, length, pad_id)
        stream = itertools.islice(stream, stage.start, None)
        for _ in stage.steps():
            batch = next(stream)
            tokens = tokens_of(batch)
            trained_tokens += tokens
            stage.record(step_tokens=tokens)
            yield batch

    with session.mesh, session.stop.heard():
        trainer.train(batches(), skip_jit=True)
    slots = max(1, trainer.train_steps * row_count * length)
    print(f"sft: {trained_tokens / slots:.1%} of {slots:,} slots used, in rows of {length}")
    return stage.report(tokens=trained_tokens)
