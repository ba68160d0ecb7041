import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from conftest import session_of, short_run
from submission.bench.policy import losses
from submission.bench.rows import data, packing
from submission.bench.run import budget, checkpoints
from submission.essay import sft


def train(policy, tokenizer, rows, mesh, out, minutes=10):
    with session_of(short_run(out), mesh) as session:
        deadline = budget.Deadline.after(minutes)
        return sft.train_sft(policy, tokenizer, rows["sft"], session, deadline)


def adapter(policy):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(policy, nnx.LoRAParam))]


@pytest.mark.slow
def test_the_loss_is_the_mean_over_target_tokens(make_policy, tokenizer, rows):
    """Of packed rows, against the same number computed example by example, unpadded."""
    policy = make_policy()
    examples = [data.tokenize(tokenizer, example) for example in rows["sft"].examples[:2]]
    (batch,) = packing.packed_batches(examples, 1, 192, tokenizer.pad_id())
    inputs = packing.packed_model_input(jax.tree.map(jnp.array, batch))
    loss = losses.chunked_sft_loss(1024)(policy, **inputs)
    alone = []
    for row in examples:
        tokens = jnp.array([row.prompt + row.target])
        length = tokens.shape[1]
        mask = jnp.tril(jnp.ones((1, length, length), bool))
        logits, _ = policy(tokens, jnp.arange(length)[None], None, mask)
        log_probs = jax.nn.log_softmax(logits[0, len(row.prompt) - 1 : -1])
        alone += [-log_probs[i, token] for i, token in enumerate(row.target)]
    assert float(loss) == pytest.approx(float(jnp.mean(jnp.array(alone))), abs=1e-5)


@pytest.fixture(scope="module")
def trained(make_policy, tokenizer, rows, mesh, tmp_path_factory):
    """A run of four steps: policy, adapter before, report, folder, and what it printed."""
    policy, out = make_policy(), tmp_path_factory.mktemp("sft") / "run"
    before, printed = adapter(policy), io.StringIO()
    with contextlib.redirect_stdout(printed):
        report = train(policy, tokenizer, rows, mesh, out)
    return policy, before, report, out, printed.getvalue()


def test_sft_learns_saves_and_reports_every_step(trained):
    policy, before, report, out, _ = trained
    assert report["steps"] == 4
    assert [line["step"] for line in report["history"]] == [1, 2, 3, 4]
    assert report["history"][-1]["loss"] < report["history"][0]["loss"]
    assert all({"loss", "grad_norm", "learning_rate"} <= set(line) for line in report["history"])
    assert any((a != b).any() for a, b in zip(before, adapter(policy), strict=True))
    assert checkpoints.checkpoint_steps(out / "checkpoints" / "sft") == [4]


def test_the_tokens_reported_are_those_that_are_not_padding(trained):
    _, _, report, out, printed = trained
    settings = short_run(out).profile.sft
    slots = settings.steps * settings.rows * settings.length
    assert 0.95 * slots < report["tokens"] <= slots
    assert (
        f"{report['tokens'] / slots:.1%} of {slots:,} slots used, in rows of {settings.length}"
        in printed
    )


@pytest.mark.slow
def test_the_same_seed_gives_the_same_adapter(
    trained, make_policy, tokenizer, rows, mesh, tmp_path
):
    policy = make_policy()
    train(policy, tokenizer, rows, mesh, tmp_path / "run")
    for a, b in zip(adapter(trained[0]), adapter(policy), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_time_nothing_is_trained_and_it_says_so(
    make_policy, tokenizer, rows, mesh, tmp_path, capsys
):
    policy = make_policy()
    before = adapter(policy)
    report = train(policy, tokenizer, rows, mesh, tmp_path / "run", minutes=0)
    assert report["steps"] == 0
    assert "sft ended after 0 of 4 steps: its time is up" in capsys.readouterr().out
    for a, b in zip(before, adapter(policy), strict=True):
        np.testing.assert_array_equal(a, b)
