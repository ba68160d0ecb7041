# %% [markdown]
# ### Stage 1: the warm start
#
# Tunix's `PeftTrainer` with its own loss. Each row is one padded example: positions count
# from its BOS, attention is causal, and the loss mask covers the target and its EOS.

# %%
import pathlib
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from tunix.sft import peft_trainer
from tunix.sft import utils as sft_utils

# %% tags=["modules-only"]
from submission.budget import Deadline, until
from submission.checkpoints import prepare_saves, saving_options
from submission.config import Run
from submission.data import Mixture, batched, mixed_forever, pad_tokens, tokenize
from submission.metrics import SilentBar, StepLog, total_seconds
from submission.updates import make_optimizer, use_adapter_only_step

# %%
SFT_EVENTS = {
    "sft/train/loss": ("loss", 0),
    "sft/train/grad_norm": ("grad_norm", 0),
    "sft/train/learning_rate": ("learning_rate", 0),
}


def sft_model_input(batch: peft_trainer.TrainingInput, pad_id: int) -> dict[str, jax.Array]:
    """What Tunix's default loss takes: tokens_BT, loss mask_BT, positions_BT, mask_BTS."""
    is_token_BT = batch.input_tokens != pad_id
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": sft_utils.build_positions_from_mask(is_token_BT),
        "attention_mask": sft_utils.make_causal_attn_mask(is_token_BT),
    }


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
        ),
    )
    trainer.with_gen_model_input_fn(lambda batch: sft_model_input(batch, tokenizer.pad_id()))
    prepare_saves(trainer.checkpoint_manager, checkpoints / "sft")
    use_adapter_only_step(trainer, run.profile.remat)
    trainer._pbar = SilentBar()
    trained_tokens = 0

    def batches() -> Any:
        nonlocal trained_tokens
        stream = batched(mixed_forever(rows, run.seed), settings.batch_size)
        for batch, _ in zip(stream, range(settings.steps), strict=False):
            tokens = [tokenize(tokenizer, example) for example in batch]
            tokens_BT, mask_BT = pad_tokens(tokens, settings.length, tokenizer.pad_id())
            trained_tokens += int((tokens_BT != tokenizer.pad_id()).sum())
            yield peft_trainer.TrainingInput(input_tokens=tokens_BT, input_mask=mask_BT)

    with mesh:
        trainer.train(log.timed(until(deadline, batches())), skip_jit=True)
    log.close()
    return {
        "name": "sft",
        "steps": trainer.train_steps,
        "seconds": total_seconds(log.history),
        "tokens": trained_tokens,
        "history": log.history,
    }
