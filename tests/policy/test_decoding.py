"""The decoding programs and the engine that drives them, against Tunix's own sampler."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.generate import tokenizer_adapter
from tunix.models.gemma import model as gemma2_lib
from tunix.rl.rollout import base_rollout, vanilla_rollout

from conftest import SMALL_GEMMA_2, moved, short_run
from submission.bench.answers import prompts
from submission.bench.policy import alike, cluster, decoding, losses, model, rollout
from submission.bench.settings import config
from submission.essay import profiles

LIMIT, LONGEST_PROMPT = 80, 48
NEVER = -1  # no token: nothing ends early


def settings(**changes):
    return rollout.EngineConfig(
        **{
            "max_tokens_to_generate": LIMIT,
            "max_prompt_length": LONGEST_PROMPT,
            "kv_cache_size": LIMIT + LONGEST_PROMPT,
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": jax.random.PRNGKey(3),
            "segment": 16,
            "prompt_step": 16,
            **changes,
        }
    )


GREEDY = {"top_p": None}


ADAPTER = config.Adapter(rank=16, alpha=32.0)


@pytest.fixture(scope="module")
def gemma_3(tiny_folder, mesh):
    stock = model.load_stock(profiles.STOCK_MODELS["gemma3_tiny_it"], tiny_folder, mesh)
    return moved(model.add_adapter(stock, ADAPTER, 0, mesh), 0.05)


@pytest.fixture(scope="module")
def gemma_2(mesh):
    """A small Gemma 2 with its soft caps, two kinds of layers and grouped heads."""
    layers = 2 * SMALL_GEMMA_2["attention_types"]
    # The window is as long as the cache: with a shorter one, Tunix's sampler compares positions,
    # which do not count a prompt's padding, with slots of the cache, which do.
    changes = dict(num_layers=4, attention_types=layers, sliding_window_size=LIMIT + LONGEST_PROMPT)
    shape = gemma2_lib.ModelConfig(**SMALL_GEMMA_2 | changes)
    stock = gemma2_lib.Gemma(shape, rngs=nnx.Rngs(1))
    large = jax.tree.map(lambda x: 8 * x.astype(jnp.float32), nnx.state(stock))
    nnx.update(stock, large)
    return moved(model.add_adapter(stock, ADAPTER, 0, mesh), 0.05)


@pytest.fixture(scope="module")
def questions(rows):
    return [prompts.render_prompt(e.question) for e in rows["grpo"].examples[:12]]


def engine(policy, tokenizer, mesh, **changes):
    return rollout.PolicyRollout(policy, tokenizer, mesh, settings(**changes))


def generate(policy, tokenizer, mesh, texts, **changes):
    chosen = settings(**changes)
    return rollout.PolicyRollout(policy, tokenizer, mesh, chosen).generate(texts, chosen)


def tokens_of(output):
    return [tokens.tolist() for tokens in output.tokens]


def stock_greedy(policy, tokenizer, texts, **changes):
    """The stock sampler's completions; it leaves the EOS out."""
    shape = policy.config
    cache = base_rollout.CacheConfig(
        LIMIT + LONGEST_PROMPT, shape.num_layers, shape.num_kv_heads, shape.head_dim
    )
    stock = vanilla_rollout.VanillaRollout(
        policy, tokenizer_adapter.TokenizerAdapter(tokenizer), cache
    )
    chosen = settings(**GREEDY, **changes)
    return [tokens.tolist() for tokens in stock.generate(texts, chosen).tokens]


VOCABULARY = 1000  # not a square


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature):
    count, rng = 40_000, np.random.default_rng(0)
    logits_V = rng.normal(0, 3, VOCABULARY)
    logits_V[rng.random(VOCABULARY) < 0.3] = -np.inf
    sampling = decoding.Sampling(temperature, 1.0, None)
    logits_BV = jnp.broadcast_to(jnp.array(logits_V, jnp.float32), (count, VOCABULARY))
    drawn_B = decoding.draw(logits_BV, jax.random.key(1), jnp.arange(count), 0, sampling, (0, 1))
    expected_V = np.exp((logits_V - logits_V.max()) / temperature)
    expected_V[:2] = 0
    expected_V *= count / expected_V.sum()
    found_V = np.bincount(drawn_B, minlength=VOCABULARY)
    assert found_V[expected_V == 0].sum() == 0
    # The rare ones together, or the square of a difference would be divided by nearly nothing.
    common = expected_V > 20
    pairs = [*zip(found_V[common], expected_V[common], strict=True)]
    pairs.append((found_V[~common].sum(), expected_V[~common].sum()))
    squares = sum((found - expected) ** 2 / expected for found, expected in pairs)
    assert squares < len(pairs) + 4 * (2 * len(pairs)) ** 0.5  # four standard deviations


@pytest.mark.parametrize("chance", [0.0, 0.25, 1 - 2**-24])
def test_what_has_no_weight_is_never_chosen(chance):
    weights_BN = jnp.array([[0, 0, 1, 0], [1e-30, 0, 0, 0], [0, 3e37, 0, 0.0], [0.1, 0.7, 0.2, 0]])
    chosen_B = decoding.by_weight(weights_BN, jnp.full(4, chance))
    assert (jnp.take_along_axis(weights_BN, chosen_B[:, None], axis=1) > 0).all()


@pytest.mark.parametrize(("top_p", "expected"), [(None, {2}), (1.0, {1, 2, 3})])
def test_neither_padding_nor_bos_is_drawn_however_likely_they_are(top_p, expected):
    """The loss would leave padding out, and the tokens behind it would have been drawn on it."""
    logits_BV = jnp.log(jnp.array([[0.5, 0.02, 0.05, 0.03, 0.4]] * 64))
    sampling = decoding.Sampling(1.0, top_p, None)
    drawn = decoding.draw(logits_BV, jax.random.key(0), jnp.arange(64), 3, sampling, (0, 4))
    assert set(drawn.tolist()) <= expected
    free = decoding.draw(logits_BV, jax.random.key(0), jnp.arange(64), 3, sampling, (1, 1))
    assert 0 in free.tolist()  # as any other piece is


# --- The same tokens as the stock sampler -----------------------------------------------------


def test_greedy_completions_are_the_stock_samplers(gemma_3, tokenizer, mesh, questions):
    texts = [text for text in questions for _ in range(4)]
    ours = tokens_of(generate(gemma_3, tokenizer, mesh, texts, **GREEDY))
    without_eos = [t[:-1] if t[-1] == tokenizer.eos_id() else t for t in ours]
    assert without_eos == stock_greedy(gemma_3, tokenizer, texts)
    assert len({len(t) for t in ours}) > 3  # of different lengths: some rows finished early


@pytest.mark.slow
@pytest.mark.parametrize("segment", [24, 40, 200])
@pytest.mark.parametrize("family", ["gemma_2", "gemma_3"])
def test_long_ones_too_past_the_window_and_over_any_segments(
    request, family, segment, tokenizer, mesh, questions
):
    """The tiny Gemma 3's window is 64 tokens, its sequences here are up to 128."""
    policy = request.getfixturevalue(family)
    changes = {"eos_tokens": [NEVER], "segment": segment}
    ours = tokens_of(generate(policy, tokenizer, mesh, questions, **changes, **GREEDY))
    assert ours == stock_greedy(policy, tokenizer, questions, **changes)
    assert all(len(tokens) == LIMIT for tokens in ours)
    assert len(set(map(tuple, ours))) > 6


@pytest.mark.parametrize("limit", [1, 2, 17])
def test_the_limit_is_exact(gemma_3, tokenizer, mesh, questions, limit):
    changes = {"eos_tokens": [NEVER], "max_tokens_to_generate": limit}
    ours = tokens_of(generate(gemma_3, tokenizer, mesh, questions, **changes, **GREEDY))
    assert ours == stock_greedy(gemma_3, tokenizer, questions, **changes)


# --- The noise --------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_sampled_depends_on_nothing_but_call_and_row(gemma_3, tokenizer, mesh, questions):
    """Not on the lengths of segments, nor on padding, nor on when others finish."""
    texts = [text for text in questions for _ in range(4)]
    one = generate(gemma_3, tokenizer, mesh, texts)
    other = generate(gemma_3, tokenizer, mesh, texts, segment=40, prompt_step=48, least_share=1.0)
    assert tokens_of(one) == tokens_of(other)


@pytest.mark.parametrize("rows_at_once", [5, 32])
@pytest.mark.parametrize("draws", [{}, GREEDY, {"top_k": 4, "top_p": 0.9}])
def test_reading_equal_beginnings_once_changes_no_token(
    gemma_3, tokenizer, mesh, questions, rows_at_once, draws
):
    texts = [text for text in questions for _ in range(4)]
    how = {"segment": 8, "temperature": 0.3, **draws}  # at 1, rows of the tiny Gemma part at once
    each = tokens_of(generate(gemma_3, tokenizer, mesh, texts, **how))
    assert tokens_of(generate(gemma_3, tokenizer, mesh, texts, alike=rows_at_once, **how)) == each


def test_a_step_reads_a_row_of_each_kind_and_none_that_is_done():
    kind_B = jnp.array([0, 0, 2, 0, 4, 2, 6, 6])
    done_B = jnp.array([False] * 4 + [True] + [False] * 3)
    seen = []

    def read(rows_R):
        jax.debug.callback(lambda rows: seen.append(rows.tolist()), rows_R)
        return rows_R, [rows_R[:, None, None, None]]

    buffer = jnp.full((8, 1, 1, 1), -1)
    token_B, (new,) = alike.step_of_kinds(
        alike.kinds_of(kind_B, done_B), 2, 0, [buffer], read, lambda rows_R, at_B: rows_R[at_B]
    )
    jax.effects_barrier()
    assert sorted(seen) == [[0, 2], [6, 1]]  # the last part is filled up
    assert token_B[~done_B].tolist() == [0, 0, 2, 0, 2, 6, 6]
    assert new[~done_B, 0, 0, 0].tolist() == [0, 0, 2, 0, 2, 6, 6]


@pytest.mark.slow
def test_completions_of_a_group_differ(gemma_3, tokenizer, mesh, questions):
    output = generate(gemma_3, tokenizer, mesh, questions[:1] * 8, temperature=2.0)
    assert len(set(map(tuple, tokens_of(output)))) >= 6


def chi_square(counts, shares):
    """Pearson's statistic over its degrees of freedom, rare tokens counted together."""
    expected = shares * counts.sum()
    often = expected >= 8
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    return ((observed - wanted) ** 2 / wanted).sum() / (len(wanted) - 1), len(wanted) - 1


@pytest.mark.parametrize("family", [pytest.param("gemma_2", marks=pytest.mark.slow), "gemma_3"])
def test_tokens_are_drawn_as_the_model_says(request, family, tokenizer, mesh, questions):
    """First tokens, and second ones given the most frequent first."""
    policy = request.getfixturevalue(family)
    n, temperature = 4096, {"gemma_2": 0.3, "gemma_3": 1.5}[family]  # neither flat nor certain
    chosen = {"temperature": temperature, "eos_tokens": [NEVER], "max_tokens_to_generate": 2}
    drawn = np.array(tokens_of(generate(policy, tokenizer, mesh, questions[:1] * n, **chosen)))
    row = [tokenizer.bos_id(), *tokenizer.encode(questions[0])]

    def shares(tokens):
        T = len(tokens)
        mask = jnp.tril(jnp.ones((1, T, T), bool))
        logits, _ = policy(jnp.array([tokens]), jnp.arange(T)[None], None, mask)
        return np.asarray(jax.nn.softmax(logits[0, -1].astype(jnp.float32) / temperature))

    first = np.bincount(drawn[:, 0], minlength=640)
    often = int(first.argmax())
    second = np.bincount(drawn[drawn[:, 0] == often, 1], minlength=640)
    for counts, wanted in ((first, shares(row)), (second, shares([*row, often]))):
        statistic, freedom = chi_square(counts, wanted)
        assert freedom >= 3
        assert statistic < 1 + 5 * np.sqrt(2 / freedom)  # five standard deviations
        # And the test can tell: another temperature would not pass.
        sharper = wanted**3 / (wanted**3).sum()
        assert chi_square(counts, sharper)[0] > 1 + 5 * np.sqrt(2 / freedom)


# --- Less work --------------------------------------------------------------------------------


def spied(monkeypatch, name):
    """The shapes of the last-token array, or of the prompts, at each call of a program."""
    seen = []
    made = decoding.Decoder.__init__

    def init(self, *arguments, **keywords):
        made(self, *arguments, **keywords)
        program = getattr(self, name)

        def call(state, first, *rest, **named):
            seen.append(first.shape if name == "prefill" else first.seen.shape)
            return program(state, first, *rest, **named)

        setattr(self, name, call)

    monkeypatch.setattr(decoding.Decoder, "__init__", init)
    return seen


def test_a_prompt_is_read_once_for_its_group(monkeypatch, gemma_3, tokenizer, mesh, questions):
    shapes = spied(monkeypatch, "prefill")
    texts = [text for text in questions for _ in range(8)]
    generate(gemma_3, tokenizer, mesh, texts, max_tokens_to_generate=1)
    assert shapes == [(12, 48)] or shapes == [(12, 32)]


def test_prefill_makes_logits_at_the_last_position_only(gemma_3, mesh, tokenizer):
    """No array of 48 positions × 640 tokens is in the compiled program."""
    pad, bos, eos = tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id()
    decoder = decoding.Decoder(gemma_3, mesh, pad, bos, (eos,))
    prompts_PL, all_real = jnp.ones((8, 48), jnp.int32), jnp.ones(8, bool)
    arguments = (nnx.state(gemma_3), prompts_PL, all_real, jax.random.PRNGKey(0), jnp.int32(0))
    greedy = decoding.Sampling(1.0, None, None)
    lowered = decoder.prefill.lower(*arguments, generations=4, sampling=greedy)
    text = lowered.compile().as_text()
    assert "[8,640]" in text
    assert not {"[8,48,640]", "[384,640]"} & set(re.findall(r"\[[\d,]+\]", text))


@pytest.mark.slow
def test_the_batch_shrinks_when_sequences_are_done(
    monkeypatch, gemma_3, tokenizer, mesh, questions
):
    shapes = spied(monkeypatch, "segment")
    texts = [text for text in questions for _ in range(4)]
    output = generate(gemma_3, tokenizer, mesh, texts, segment=4, **GREEDY)
    rows = [shape[0] for shape in shapes]
    assert rows[0] == 48
    assert rows[-1] < 48
    assert rows == sorted(rows, reverse=True)
    going = [sum(len(t) > 1 + 4 * i for t in output.tokens) for i in range(len(rows))]
    sizes = rollout.batch_sizes(48, 1 / 8)
    assert rows == [min(size for size in sizes if size >= n) for n in going]


@pytest.mark.slow
def test_short_prompts_have_short_caches(monkeypatch, gemma_3, tokenizer, mesh):
    shapes = spied(monkeypatch, "prefill")
    short = prompts.render_prompt("1+2?")
    generate(gemma_3, tokenizer, mesh, [short] * 2, prompt_step=16)
    wanted = -(-(1 + len(tokenizer.encode(short))) // 16) * 16
    assert shapes == [(1, wanted)]
    assert wanted < LONGEST_PROMPT


def test_rows_that_are_kept_are_those_that_go_on():
    rng = np.random.default_rng(0)
    for _ in range(200):
        done = rng.random((4, 16)) < rng.random()
        kept = rollout.rows_to_keep(done, rollout.batch_sizes(16, 1 / 8))
        for shard, rows in zip(done, kept, strict=True):
            assert len(set(rows.tolist())) == len(rows)
            assert set(np.flatnonzero(~shard)) <= set(rows.tolist())


# --- Trouble ----------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_refused_with_its_length(gemma_3, tokenizer, mesh):
    text = prompts.render_prompt("what is " * 60)
    count = 1 + len(tokenizer.encode(text))
    with pytest.raises(ValueError, match=rf"{count} tokens, over the limit of 48"):
        generate(gemma_3, tokenizer, mesh, [text])


@pytest.mark.slow
def test_groups_that_are_not_equal_are_completed_all_the_same(gemma_3, tokenizer, mesh, questions):
    one, two, three = questions[:3]
    texts = [one, one, two, three, three, three]
    ours = tokens_of(generate(gemma_3, tokenizer, mesh, texts, **GREEDY))
    assert ours[0] == ours[1]
    assert ours[3] == ours[4] == ours[5]
    alone = tokens_of(generate(gemma_3, tokenizer, mesh, [two], **GREEDY))
    assert ours[2] == alone[0]


def test_the_policys_graph_is_left_as_it_was(gemma_3, tokenizer, mesh):
    decoding.decoding_graph(gemma_3)
    assert {type(layer.attn).__name__ for layer in gemma_3.layers} == {"Attention"}


def test_log_probs_are_those_of_the_model(gemma_3, tokenizer, mesh, questions):
    """What is sampled at temperature 0.7 is scored at temperature 0.7."""
    one = engine(gemma_3, tokenizer, mesh, temperature=0.7)
    row = [tokenizer.bos_id(), *tokenizer.encode(questions[0])]
    target = tokenizer.encode("so 42")
    ours = one.get_per_token_logps(jnp.array([row]), jnp.array([target]))
    tokens = jnp.array([row + target])
    T = tokens.shape[1]
    mask = jnp.tril(jnp.ones((1, T, T), bool))
    logits, _ = gemma_3(tokens, jnp.arange(T)[None], None, mask)
    wanted = jax.nn.log_softmax(logits[0, len(row) - 1 : -1] / 0.7)
    picked = [wanted[i, token] for i, token in enumerate(target)]
    np.testing.assert_allclose(ours[0], picked, atol=1e-4)
    assert losses.completion_log_probs  # the function that the engine calls


def test_settings_reach_the_engine_unchanged(tmp_path):
    run = short_run(tmp_path)
    engine_settings = cluster.rollout_config(run)
    for name, value in dataclasses.asdict(run.profile.generation).items():
        assert getattr(engine_settings, name) == value
    assert dataclasses.replace(engine_settings, segment=5).segment == 5
