"""Make the tiny stock Gemma of the ``tiny`` profile: a tokenizer and pre-trained weights.

It is a real Gemma 3, Tunix's own class at 1/800 of the size, in the layout in which Kaggle
hands out the stock models (``gemma3-tiny-it/`` in Orbax beside ``tokenizer.model``), so
that the notebook loads it with the same official call.

What it is pre-trained on decides what the stages after it can teach:

- one third of the documents are chats that answer at once, without working and without tags;
- two thirds are plain text: a question, its working, its answer. From there it knows how to
  work a problem out, but no chat ever showed it that it should.

It remakes the bundled rows too (`tasks.py`).

    python scripts/make_tiny_gemma.py      # about 13 minutes on two cores
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import pathlib
import random
import shutil
import time
from collections.abc import Iterator

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import sentencepiece as spm
from flax import nnx
from tunix.models.gemma3 import model as gemma3

import tasks
from submission.essay.profiles import STOCK_MODELS

HOME = tasks.DATA / "tiny_gemma"
STOCK = STOCK_MODELS["gemma3_tiny_it"]
# Gemma's own special pieces come first, in its order. The tags are single pieces, which they
# are not in Gemma's vocabulary: a completion of a few dozen tokens has none to spare.
SPECIAL_PIECES = ("<mask>", "[multimodal]", "<unused0>", "<start_of_turn>", "<end_of_turn>")
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
ROW_TOKENS, BATCH_ROWS, ECHO_EVERY = 128, 32, 16
PEAK_RATE, WARM_UP_STEPS, WEIGHT_DECAY = 3e-3, 100, 0.1


def tiny_config() -> gemma3.ModelConfig:
    """Six layers, five local and one global, as Gemma 3 has them; the notebook's own shape."""
    return gemma3.ModelConfig(**STOCK.shape, param_dtype=jnp.float32)


# --- Text --------------------------------------------------------------------------------


def chat(problem: tasks.Problem, rng: random.Random) -> str:
    """A turn answered at once, as the stock model does it."""
    say = rng.choice(("{}", "{}", "The answer is {}.", "I think it is {}."))
    return (
        f"<start_of_turn>user\n{problem.question}<end_of_turn>\n"
        f"<start_of_turn>model\n{say.format(problem.answer)}<end_of_turn>\n"
    )


def plain(problem: tasks.Problem, rng: random.Random) -> str:
    """Question, working, answer, as a page of a textbook has them."""
    style = rng.choice(("short", "steps", "steps"))
    return f"{problem.question}\n{problem.traces[style]}\n{problem.answer}"


def documents(seed: int) -> Iterator[str]:
    """Chats and plain text in turn, for ever, from the `pretrain` split alone."""
    rng = random.Random(seed)
    kinds = itertools.cycle((chat, plain, plain))
    for make, problem in zip(kinds, tasks.problems(seed, "pretrain", distinct=False), strict=False):
        yield make(problem, rng)


def train_tokenizer(path: pathlib.Path) -> spm.SentencePieceProcessor:
    """SentencePiece as Gemma has it: byte fallback, split digits, no dummy prefix."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=itertools.islice(documents(1), 20_000),
        model_writer=model,
        model_type="bpe",
        vocab_size=STOCK.shape["num_embed"],
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=[*SPECIAL_PIECES, "\n", *TAGS],
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


def echo(tokenizer: spm.SentencePieceProcessor, rng: random.Random) -> list[int]:
    """Random pieces, said twice.

    Without such pages the tags and the byte pieces would never occur, all their embeddings
    would be pushed in one direction, and SFT, which trains no embedding, could not tell
    `<answer>` from 250 other unseen pieces (4.9 nats at every tag, measured).
    """
    pieces = rng.choices(range(tokenizer.unk_id() + 1, tokenizer.vocab_size()), k=12)
    return [*pieces, tokenizer.piece_to_id("\n"), *pieces]


def packed_rows(tokenizer: spm.SentencePieceProcessor, seed: int) -> Iterator[np.ndarray]:
    """Rows of ``ROW_TOKENS`` tokens: whole documents, each ``<bos> … <eos>``, then padding."""
    row: list[int] = []
    rng = random.Random(seed)
    for number, document in enumerate(documents(seed)):
        text = echo(tokenizer, rng) if number % ECHO_EVERY == 0 else tokenizer.encode(document)
        tokens = [tokenizer.bos_id(), *text, tokenizer.eos_id()]
        if len(row) + len(tokens) > ROW_TOKENS:
            yield np.array(row + [tokenizer.pad_id()] * (ROW_TOKENS - len(row)), np.int32)
            row = []
        row += tokens[:ROW_TOKENS]


# --- Model -------------------------------------------------------------------------------


def initial_model(config: gemma3.ModelConfig, seed: int) -> gemma3.Gemma3:
    """Gemma with tensors drawn by us: Tunix's own init leaves every MLP at zero."""
    model = gemma3.Gemma3(config, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)

    def draw(path: tuple, value: jax.Array) -> jax.Array:
        name = "/".join(str(getattr(part, "key", part)) for part in path)
        if "scale" in name:
            return jnp.zeros(value.shape, jnp.float32)
        fan_in = (
            value.shape[-1]
            if "input_embedding" in name
            else {
                "q_einsum": config.embed_dim,
                "kv_einsum": config.embed_dim,
                "attn_vec_einsum": config.num_heads * config.head_dim,
                "gate_proj": config.embed_dim,
                "up_proj": config.embed_dim,
                "down_proj": config.hidden_dim,
            }[next(p for p in name.split("/") if p.endswith(("einsum", "proj")))]
        )
        return jnp.asarray(rng.normal(0, fan_in**-0.5, value.shape), jnp.float32)

    pure = nnx.to_pure_dict(nnx.state(model))
    nnx.update(model, jax.tree_util.tree_map_with_path(draw, pure))
    return model


def packed_inputs(tokens_BT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Positions that restart, a block-diagonal causal mask and the loss mask of packed rows."""
    index = jnp.arange(tokens_BT.shape[1])
    starts_BT = tokens_BT == 2  # <bos>
    segment_BT = jnp.cumsum(starts_BT, axis=1)
    start_BT = jax.lax.cummax(jnp.where(starts_BT, index, 0), axis=1)
    causal_BTS = (segment_BT[:, :, None] == segment_BT[:, None, :]) & (
        index[:, None] >= index[None, :]
    )
    is_target_BT = (tokens_BT != 0) & ~starts_BT
    return index - start_BT, causal_BTS, is_target_BT


def pretrain(
    model: gemma3.Gemma3, rows: Iterator[np.ndarray], steps: int, decay_steps: int
) -> Iterator[tuple[int, float]]:
    """AdamW, warm-up, constant rate, linear decay at the end; yields (step, loss)."""
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0, PEAK_RATE, WARM_UP_STEPS),
            optax.constant_schedule(PEAK_RATE),
            optax.linear_schedule(PEAK_RATE, PEAK_RATE / 20, decay_steps),
        ],
        [WARM_UP_STEPS, steps - decay_steps],
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, b2=0.98, weight_decay=WEIGHT_DECAY),
    )
    graph, params = nnx.split(model, nnx.Param)
    state = optimizer.init(params)

    def loss_fn(params: nnx.State, tokens_BT: jax.Array) -> jax.Array:
        positions_BT, mask_BTS, is_target_BT = packed_inputs(tokens_BT)
        logits_BTV, _ = nnx.merge(graph, params)(tokens_BT, positions_BT, None, mask_BTS)
        losses_BT = optax.softmax_cross_entropy_with_integer_labels(
            logits_BTV[:, :-1], tokens_BT[:, 1:]
        )
        return jnp.sum(losses_BT * is_target_BT[:, 1:]) / jnp.sum(is_target_BT[:, 1:])

    @jax.jit
    def step_fn(params: nnx.State, state: optax.OptState, tokens_BT: jax.Array) -> tuple:
        loss, grads = jax.value_and_grad(loss_fn)(params, tokens_BT)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for step in range(1, steps + 1):
        batch = np.stack(list(itertools.islice(rows, BATCH_ROWS)))
        params, state, loss = step_fn(params, state, batch)
        if step % 50 == 0 or step == steps:
            nnx.update(model, params)
            yield step, float(loss)


def to_flax_layout(model: gemma3.Gemma3) -> dict[str, dict[str, np.ndarray]]:
    """The model's tensors under the names of Kaggle's Flax checkpoints, in bfloat16."""
    layout: dict[str, dict[str, np.ndarray]] = {}
    flat = flax.traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    gates: dict[str, dict[str, np.ndarray]] = {}
    for (*module, name), value in flat.items():
        array = np.asarray(value.astype(jnp.bfloat16))
        path = "/".join(str(part) for part in module).replace("layers/", "layer_")
        if path.endswith(("gate_proj", "up_proj")):
            mlp, part = path.rsplit("/", 1)
            gates.setdefault(mlp, {})[part] = array.T
        elif path.endswith("down_proj"):
            layout[f"transformer/{path.replace('down_proj', 'linear')}"] = {"w": array}
        else:
            layout[f"transformer/{path}"] = {name: array}
    for mlp, parts in gates.items():
        stacked = np.stack([parts["gate_proj"], parts["up_proj"]])
        layout[f"transformer/{mlp}/gating_einsum"] = {"w": stacked}
    return layout


def save(home: pathlib.Path, model: gemma3.Gemma3, card: dict[str, object]) -> None:
    """Writes ``gemma3-tiny-it/`` and ``card.json`` (how the model was made)."""
    target = home / STOCK.weights
    shutil.rmtree(target, ignore_errors=True)
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(target, to_flax_layout(model))
    checkpointer.wait_until_finished()
    # Orbax notes where it wrote; that place is nobody else's business.
    (target / "commit_success.txt").write_text("Checkpoint commit was successful.\n")
    (home / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def main() -> None:
    """Makes the tokenizer, pre-trains the model, writes both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--decay-steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=pathlib.Path, default=HOME)
    options = parser.parse_args()

    options.home.mkdir(parents=True, exist_ok=True)
    tasks.main()
    tokenizer = train_tokenizer(options.home / "tokenizer.model")
    model = initial_model(tiny_config(), options.seed)
    start, tokens = time.monotonic(), ROW_TOKENS * BATCH_ROWS
    rows = packed_rows(tokenizer, options.seed + 2)
    for step, loss in pretrain(model, rows, options.steps, options.decay_steps):
        rate = step * tokens / (time.monotonic() - start)
        print(f"step {step}/{options.steps}  loss {loss:.3f}  {rate:,.0f} tokens/s", flush=True)
    card = {"steps": options.steps, "tokens": options.steps * tokens, "seed": options.seed}
    save(options.home.resolve(), model, card)


if __name__ == "__main__":
    main()
