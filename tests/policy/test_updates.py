import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, struct
from tunix.sft import peft_trainer
from tunix.sft import utils as sft_utils

from submission.bench.policy import updates
from submission.bench.run import metrics
from submission.bench.settings import config

SETTINGS = config.Optimizer(peak_rate=3e-6, warm_up_share=0.0)


def batch():
    tokens_BT = np.random.default_rng(0).integers(4, 600, (2, 16)).astype(np.int32)
    return peft_trainer.TrainingInput(input_tokens=tokens_BT, input_mask=np.ones((2, 16), bool))


def trainer_for(policy, optimizer, steps=3, passes=None):
    settings = peft_trainer.TrainingConfig(
        eval_every_n_steps=99, max_steps=steps, gradient_accumulation_steps=passes
    )
    trainer = peft_trainer.PeftTrainer(policy, optimizer, settings)
    trainer.with_gen_model_input_fn(
        lambda x: {
            "input_tokens": x.input_tokens,
            "input_mask": x.input_mask,
            "positions": sft_utils.build_positions_from_mask(x.input_mask),
            "attention_mask": sft_utils.make_causal_attn_mask(x.input_mask),
        }
    )
    return trainer


def adapter(policy):
    return jax.tree.map(jnp.copy, nnx.state(policy, nnx.LoRAParam))


def train(policy, optimizer, mesh, steps=3, ours=True):
    trainer = trainer_for(policy, optimizer, steps)
    if ours:
        updates.use_adapter_only_step(trainer)
    with mesh:
        trainer.train([batch()] * steps, skip_jit=ours)
    return trainer


def moved_share(before, after):
    """Share of the entries of LoRA's first factor that changed."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    changed = [(np.asarray(a) != np.asarray(b)).ravel() for a, b in pairs if np.asarray(a).any()]
    return np.concatenate(changed).mean()


# --- Trap 1: in bfloat16, small updates round away -------------------------------------------


@pytest.mark.slow
def test_trap_1_stock_loses_small_updates_in_bfloat16_and_the_master_keeps_them(make_policy, mesh):
    stock = make_policy("bfloat16")
    before = adapter(stock)
    train(stock, optax.adamw(3e-6, weight_decay=0.0), mesh, steps=2, ours=False)
    lost = moved_share(before, adapter(stock))

    ours = make_policy("bfloat16")
    trainer = train(ours, updates.make_optimizer(SETTINGS), mesh, steps=2)
    masters = nnx.to_pure_dict(nnx.state(trainer.optimizer))["opt_state"]["master"]
    kept = moved_share(jax.tree.map(lambda x: x.astype(jnp.float32), before), masters)

    assert lost < 0.05  # nearly all of the training is rounded away
    assert kept > 0.5  # B starts at zero, so A's gradient is zero until B has moved


@pytest.mark.slow
def test_the_adapter_is_always_the_rounded_master(make_policy, mesh):
    policy = make_policy("bfloat16")
    trainer = train(policy, updates.make_optimizer(config.Optimizer(1e-3)), mesh, steps=4)
    masters = nnx.to_pure_dict(nnx.state(trainer.optimizer))["opt_state"]["master"]
    pairs = zip(jax.tree.leaves(masters), jax.tree.leaves(adapter(policy)), strict=True)
    for master, rounded in pairs:
        assert master.dtype == jnp.float32
        assert rounded.dtype == jnp.bfloat16
        assert (np.asarray(master.astype(jnp.bfloat16)) == np.asarray(rounded)).all()


def test_small_updates_add_up():
    """A hundred steps of a hundredth of a unit in the last place move the parameter by one."""
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    unit = 2.0**-7

    def run(optimizer):
        state, value = optimizer.init(params), params
        for _ in range(100):
            changes, state = optimizer.update({"w": jnp.ones(3, jnp.bfloat16)}, state, value)
            value = optax.apply_updates(value, changes)
        return float(value["w"][0])

    sgd = optax.sgd(unit / 100)
    assert run(sgd) == 1.0
    assert run(updates.with_master_weights(sgd)) == pytest.approx(1 - unit, abs=unit / 2)


def test_in_float32_the_master_changes_nothing():
    params = {"w": jnp.linspace(-1, 1, 7)}
    inner = optax.adamw(1e-2)
    ours = updates.with_master_weights(inner)
    state, plain = ours.init(params), inner.init(params)
    gradient = {"w": jnp.cos(jnp.arange(7.0))}
    ours_changes, _ = ours.update(gradient, state, params)
    plain_changes, _ = inner.update(gradient, plain, params)
    a, b = optax.apply_updates(params, ours_changes), optax.apply_updates(params, plain_changes)
    np.testing.assert_array_equal(a["w"], b["w"])


# --- Trap 2: injected hyper-parameters in bfloat16 -------------------------------------------


@pytest.mark.slow
def test_trap_2_stock_injection_is_nan_at_the_first_step_in_bfloat16_and_ours_is_not(
    make_policy, mesh
):
    stock = make_policy("bfloat16")
    train(stock, optax.inject_hyperparams(optax.adamw)(1e-3), mesh, steps=1, ours=False)
    assert not metrics.all_finite(adapter(stock))

    ours = make_policy("bfloat16")
    train(ours, updates.make_optimizer(config.Optimizer(1e-3)), mesh, steps=2)
    assert metrics.all_finite(adapter(ours))


def test_trap_2_stock_stores_the_numbers_in_bfloat16_and_ours_in_float32():
    """Without the master weights, whose dtype would hide it."""
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    stock = optax.inject_hyperparams(optax.adamw)(1e-3).init(params).hyperparams
    assert float(stock["b2"]) == 1.0
    state = updates.injected_adamw(config.Optimizer(1e-3), 1e-3).init(params)
    assert {x.dtype for x in state.hyperparams.values()} == {jnp.dtype(jnp.float32)}
    changes, _ = updates.injected_adamw(config.Optimizer(1e-3), 1e-3).update(params, state, params)
    assert metrics.all_finite(changes)


# --- Trap 12: the base stays where it is ------------------------------------------------------


def base_pointers(policy):
    _, _, base = nnx.split(policy, nnx.LoRAParam, ...)
    return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(base)]


@pytest.mark.slow
def test_trap_12_stock_moves_the_base_to_new_buffers_and_ours_leaves_it(make_policy, mesh):
    stock = make_policy()
    before = base_pointers(stock)
    train(stock, optax.adamw(1e-3), mesh, steps=1, ours=False)
    assert base_pointers(stock) != before

    ours = make_policy()
    before = base_pointers(ours)
    train(ours, updates.make_optimizer(SETTINGS), mesh, steps=1)
    assert base_pointers(ours) == before


def test_our_step_makes_the_same_update_as_stock(make_policy, mesh):
    stock, ours = make_policy(), make_policy()
    train(stock, optax.adamw(1e-3), mesh, steps=3, ours=False)
    train(ours, optax.adamw(1e-3), mesh, steps=3)
    for a, b in zip(jax.tree.leaves(adapter(stock)), jax.tree.leaves(adapter(ours)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# --- What is not finite is left out ------------------------------------------------------------


def test_a_gradient_that_is_not_finite_changes_nothing_but_a_count(make_policy, mesh):
    policy = make_policy()
    trainer = train(policy, updates.make_optimizer(config.Optimizer(1e-3)), mesh, steps=2)
    before = adapter(policy), nnx.to_pure_dict(nnx.state(trainer.optimizer))
    before = jax.tree.map(np.array, before)  # copies: what a step gets is donated
    good_loss = trainer.loss_fn

    def bad_loss(model, input_tokens, input_mask, positions, attention_mask):
        return good_loss(model, input_tokens, input_mask, positions, attention_mask) * jnp.nan

    trainer = trainer_for(policy, updates.make_optimizer(config.Optimizer(1e-3)), steps=1)
    trainer.with_loss_fn(bad_loss)
    nnx.update(trainer.optimizer, jax.tree.map(jnp.array, before[1]))
    updates.use_adapter_only_step(trainer)
    with mesh:
        trainer.train([batch()], skip_jit=True)
    after = nnx.to_pure_dict(nnx.state(trainer.optimizer))["opt_state"]
    assert int(after["inner"]["total_notfinite"]) == 1
    changed = [
        jax.tree.map(np.array_equal, before[0], adapter(policy)),
        jax.tree.map(np.array_equal, before[1]["opt_state"]["master"], after["master"]),
        jax.tree.map(
            np.array_equal,
            before[1]["opt_state"]["inner"]["inner_state"],
            after["inner"]["inner_state"],
        ),
    ]
    assert all(jax.tree.leaves(changed))


@pytest.mark.slow
def test_a_pass_that_is_not_finite_leaves_out_its_update_and_no_other(make_policy, mesh):
    """Stock: `optax.MultiSteps` never gets rid of the NaN."""
    good = batch()
    bad = peft_trainer.TrainingInput(
        np.where(np.arange(16) == 0, 5, good.input_tokens).astype(np.int32), good.input_mask
    )

    def after(passes, ours=True):
        policy = make_policy()
        before = adapter(policy)
        optimizer = updates.make_optimizer(config.Optimizer(1e-3))
        trainer = trainer_for(policy, optimizer, len(passes) // 2, passes=2)
        stock_loss = trainer.loss_fn

        def loss(model, input_tokens, input_mask, positions, attention_mask):
            found = stock_loss(model, input_tokens, input_mask, positions, attention_mask)
            return jnp.where(input_tokens[0, 0] == 5, jnp.nan, 1.0) * found

        trainer.with_loss_fn(loss)
        if ours:
            updates.use_adapter_only_step(trainer)
        with mesh:
            trainer.train(passes, skip_jit=ours)
        moved = jax.tree.map(lambda a, b: b - a, before, adapter(policy))
        return [np.asarray(x) for x in jax.tree.leaves(moved)]

    expected = after([good, good])
    assert any(x.any() for x in expected)
    passes = [bad, good, good, good]
    assert all(map(np.array_equal, after(passes), expected))
    assert not any(x.any() for x in after(passes, ours=False))


# --- Part by part -----------------------------------------------------------------------------


def test_a_pass_in_parts_is_the_same_pass(make_policy, mesh):
    rng = np.random.default_rng(1)
    tokens_BT = rng.integers(4, 600, (4, 16)).astype(np.int32)
    mask_BT = np.arange(16) < np.array([[16], [9], [12], [5]])

    def loss(model, input_tokens, input_mask, positions, attention_mask):
        logits_BTV, _ = model(input_tokens, positions, None, attention_mask)
        score_BT = logits_BTV[..., 0] * input_mask
        aux = {"tokens": input_mask.sum(), "score": score_BT.sum() / input_mask.sum()}
        return (score_BT.sum(1) / input_mask.sum(1)).mean(), aux

    def trained(parts):
        policy, heard = make_policy(), []
        trainer = trainer_for(policy, updates.make_optimizer(SETTINGS))
        trainer.with_loss_fn(loss, has_aux=True)
        updates.use_adapter_only_step(
            trainer, report=lambda *found: heard.append(jax.tree.map(float, found)), parts=parts
        )
        with mesh:
            trainer.train([peft_trainer.TrainingInput(tokens_BT, mask_BT)], skip_jit=True)
        ((value, aux, norm),) = heard
        return [value, aux["tokens"], aux["score"], norm, *jax.tree.leaves(adapter(policy))]

    whole = trained(1)
    assert whole[1] == mask_BT.sum()
    for parts in (2, 4):
        for a, b in zip(whole, trained(parts), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# --- Passes that teach nothing ----------------------------------------------------------------


@struct.dataclass
class Pass:
    """What GRPO's trainer gets, in part."""

    input_tokens: np.ndarray
    input_mask: np.ndarray
    advantages: np.ndarray
    ref_per_token_logps: np.ndarray | None = None


def pass_of(weight, reference=None):
    return Pass(
        input_tokens=batch().input_tokens, input_mask=batch().input_mask,
        advantages=np.full(2, weight), ref_per_token_logps=reference,
    )  # fmt: skip


def weighed_loss(model, input_tokens, input_mask, positions, attention_mask, advantages):
    logits_BTV, _ = model(input_tokens, positions, None, attention_mask)
    return jnp.mean(logits_BTV[..., 0].mean(axis=1) * advantages)


def reinforced(policy, mesh, weights, skip=True, reference=None):
    """The adapter after an update of two passes each, and how often the model was run."""
    trainer, passes = trainer_for(policy, updates.make_optimizer(SETTINGS), 99, passes=2), []
    plain = trainer.gen_model_input_fn

    def inputs(x):
        return plain(x) | {"advantages": x.advantages}

    trainer.with_gen_model_input_fn(inputs).with_loss_fn(weighed_loss)
    patch = pytest.MonkeyPatch()
    with patch.context() as m:
        if not skip:
            m.setattr(updates, "is_idle", lambda inputs: False)
        whole = updates.adapter_only_step

        def counted(graph, optimizer_graph, train_step, *more):
            step = whole(graph, optimizer_graph, train_step, *more)
            if train_step is updates.without_gradient:
                return step
            return lambda *inputs: (passes.append(1), step(*inputs))[1]

        m.setattr(updates, "adapter_only_step", counted)
        updates.use_adapter_only_step(trainer)
        with mesh:
            trainer.train([pass_of(weight, reference) for weight in weights], skip_jit=True)
    return [np.asarray(x) for x in jax.tree.leaves(adapter(policy))], len(passes)


def test_a_pass_without_advantages_is_left_out_and_changes_nothing_else(make_policy, mesh):
    weights = [1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
    ours, passes = reinforced(make_policy(), mesh, weights)
    whole, all_passes = reinforced(make_policy(), mesh, weights, skip=False)
    assert (passes, all_passes) == (2, 6)
    for a, b in zip(ours, whole, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_a_first_pass_that_teaches_nothing_reports_what_any_other_would(make_policy, mesh):
    """A run that goes on begins with a pass that was a later one in the unbroken run."""

    def loss(model, input_tokens, input_mask, positions, attention_mask, advantages):
        inputs = input_tokens, input_mask, positions, attention_mask, advantages
        return weighed_loss(model, *inputs), {"looked": jnp.float32(1.0)}

    def reports(weights):
        trainer = trainer_for(make_policy(), updates.make_optimizer(SETTINGS), 99, passes=1)
        plain, heard = trainer.gen_model_input_fn, []
        trainer.with_gen_model_input_fn(lambda x: plain(x) | {"advantages": x.advantages})
        trainer.with_loss_fn(loss, has_aux=True)
        updates.use_adapter_only_step(
            trainer, report=lambda value, aux, norm: heard.append(float(aux["looked"]))
        )
        with mesh:
            trainer.train([pass_of(weight) for weight in weights], skip_jit=True)
        return heard

    assert reports([1.0, 0.0]) == [1.0, 0.0]
    assert reports([0.0, 1.0]) == [0.0, 1.0]


def test_under_a_kl_term_no_pass_is_left_out(make_policy, mesh):
    _, passes = reinforced(make_policy(), mesh, [1.0, 0.0, 0.0, 0.0], reference=np.zeros((2, 16)))
    assert passes == 4


# --- Rate, schedule and rematerialisation -----------------------------------------------------


def test_the_schedule_is_exactly_as_long_as_the_stage():
    rate = updates.make_schedule(config.Optimizer(1.0, warm_up_share=0.1, end_share=0.1), 100)
    assert float(rate(0)) == pytest.approx(0.1)
    assert float(rate(10)) == pytest.approx(1.0)
    assert float(rate(100)) == pytest.approx(0.1)
    assert 0.1 < float(rate(99)) < 0.11


@pytest.mark.slow
def test_the_rate_of_a_step_is_the_one_that_is_asked_for(make_policy, mesh):
    """Half the rate, half the first update: Adam's first step is the rate times a sign."""
    moves = []
    for rate in (1e-3, 5e-4):
        policy = make_policy()
        before = adapter(policy)
        trainer = trainer_for(policy, updates.make_optimizer(config.Optimizer(1.0)), steps=1)
        updates.use_adapter_only_step(trainer, rate=lambda rate=rate: rate)
        with mesh:
            trainer.train([batch()], skip_jit=True)
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(adapter(policy)), strict=True)
        moves.append(max(float(jnp.abs(a - b).max()) for a, b in pairs))
    assert moves[0] == pytest.approx(1e-3, rel=1e-3)
    assert moves[1] == pytest.approx(5e-4, rel=1e-3)


def test_rematerialisation_is_on_in_the_step_and_off_outside(make_policy):
    policy = make_policy()
    inputs = policy.get_model_input()
    graph, state = nnx.split(policy)

    def forward(state):
        return nnx.merge(graph, state)(**inputs)[0].sum()

    assert "remat" not in str(jax.make_jaxpr(forward)(state))
    with updates.rematerialised(policy.config, True):
        assert "remat" in str(jax.make_jaxpr(lambda s: forward(s))(state))
    assert policy.config.remat_config.name == "NONE"


@pytest.mark.slow
@pytest.mark.parametrize("on_mesh", [True, False])
def test_the_step_is_compiled_once(make_policy, mesh, monkeypatch, on_mesh):
    """And twice if the optimizer's numbers are not on the mesh from the start."""
    if not on_mesh:
        monkeypatch.setattr(updates, "on_mesh_of", lambda like, state: state)
    long_ones, seen = [], []

    def hear(event, seconds, **_):  # Tunix takes all listeners away when a trainer is closed
        if event.endswith("backend_compile_duration") and seconds > 0.5:
            long_ones.append(seconds)

    def batches():
        for _ in range(3):
            seen.append(len(long_ones))
            yield batch()

    trainer = trainer_for(make_policy(), updates.make_optimizer(config.Optimizer(1e-3)), steps=3)
    updates.use_adapter_only_step(trainer, rate=lambda: 1e-3)
    jax.monitoring.register_event_duration_secs_listener(hear)
    with mesh:
        trainer.train(batches(), skip_jit=True)
    assert seen == ([0, 1, 1] if on_mesh else [0, 1, 2])
