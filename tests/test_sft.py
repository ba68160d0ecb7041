import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.sft import peft_trainer

from conftest import short_run
from submission import budget, checkpoints, data, sft


def train(policy, tokenizer, rows, mesh, out, minutes=10):
    run = short_run(out)
    folder = checkpoints.open_run_folder(run)
    try:
        return sft.train_sft(
            policy,
            tokenizer,
            rows["sft"],
            run,
            mesh,
            folder.checkpoints,
            folder.metrics,
            budget.Deadline.after(minutes),
        )
    finally:
        folder.release()


def adapter(policy):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(policy, nnx.LoRAParam))]


def test_the_loss_is_the_mean_over_target_tokens(make_policy, tokenizer, rows):
    """Tunix's loss on our inputs, against the same number computed row by row, unpadded."""
    policy = make_policy()
    tokenized = [data.tokenize(tokenizer, example) for example in rows["sft"].examples[:3]]
    tokens_BT, mask_BT = data.pad_tokens(tokenized, 128, tokenizer.pad_id())
    batch = peft_trainer.TrainingInput(
        input_tokens=jnp.array(tokens_BT), input_mask=jnp.array(mask_BT)
    )
    loss = peft_trainer._default_loss_fn(policy, **sft.sft_model_input(batch, tokenizer.pad_id()))
    losses = []
    for row in tokenized:
        tokens = jnp.array([row.prompt + row.target])
        length = tokens.shape[1]
        mask = jnp.tril(jnp.ones((1, length, length), bool))
        logits, _ = policy(tokens, jnp.arange(length)[None], None, mask)
        log_probs = jax.nn.log_softmax(logits[0, len(row.prompt) - 1 : -1])
        losses += [-log_probs[i, token] for i, token in enumerate(row.target)]
    assert float(loss) == pytest.approx(float(jnp.mean(jnp.array(losses))), abs=1e-4)


def test_sft_learns_saves_and_reports_every_step(make_policy, tokenizer, rows, mesh, tmp_path):
    policy = make_policy()
    before = adapter(policy)
    report = train(policy, tokenizer, rows, mesh, tmp_path / "run")
    assert report["steps"] == 4
    assert [line["step"] for line in report["history"]] == [1, 2, 3, 4]
    assert report["history"][-1]["loss"] < report["history"][0]["loss"]
    assert all({"loss", "grad_norm", "learning_rate"} <= set(line) for line in report["history"])
    assert any((a != b).any() for a, b in zip(before, adapter(policy), strict=True))
    assert checkpoints.checkpoint_steps(tmp_path / "run" / "checkpoints" / "sft") == [4]


def test_the_same_seed_gives_the_same_adapter(make_policy, tokenizer, rows, mesh, tmp_path):
    results = []
    for name in ("one", "two"):
        policy = make_policy()
        train(policy, tokenizer, rows, mesh, tmp_path / name)
        results.append(adapter(policy))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_deadline_ends_the_stage_by_ending_its_iterator(
    make_policy, tokenizer, rows, mesh, tmp_path
):
    report = train(make_policy(), tokenizer, rows, mesh, tmp_path / "run", minutes=0)
    assert report["steps"] == 1  # Tunix fetches the first batch before it starts
    saved = tmp_path / "run" / "checkpoints" / "sft"
    assert checkpoints.checkpoint_steps(saved) == [1]
