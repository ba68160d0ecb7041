"""Costs read from programs compiled for a v5e-8, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tpu import cost as compiled_cost
from tpu import target as tpu_target

pytestmark = pytest.mark.skipif(
    bool(tpu_target.missing_compiler()), reason=tpu_target.missing_compiler()
)


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(tpu_target.tpu_devices("v5e:2x4")), ("chips",))


@pytest.fixture
def array(mesh):
    def make(*shape, dtype=jnp.bfloat16, spec=None):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec or P()))

    return make


def compiled(function, *arguments, **options):
    return jax.jit(function, **options).lower(*arguments).compile()


def cost(function, *arguments, **options):
    return compiled_cost.cost_of(compiled(function, *arguments, **options))


def test_a_product_reads_its_factors_and_writes_its_result(array):
    program = compiled(lambda a, b: a @ b, array(8192, 4096), array(4096, 16384))
    found = compiled_cost.cost_of(program)
    assert found.bytes == 2 * (8192 * 4096 + 4096 * 16384 + 8192 * 16384)
    assert found.flops == 2 * 8192 * 4096 * 16384 == program.cost_analysis()["flops"]
    assert found.hbm_gib == pytest.approx(found.bytes / 2**30)
    assert found.collectives == {}
    assert found.bound == "flops"
    assert found.roofline_seconds == found.flops / 197e12


def test_a_batched_product_has_the_flops_of_its_parts(array):
    """The TPU's compiler makes a dilated convolution of it, with mostly zeros inside."""
    program = compiled(
        lambda q, k: jnp.einsum("bkgh,bksh->bkgs", q, k),
        array(64, 4, 2, 256),
        array(64, 4, 896, 256),
    )
    found = compiled_cost.cost_of(program)
    assert found.flops == 2 * 64 * 4 * 2 * 896 * 256 == program.cost_analysis()["flops"]
    assert found.bound == "hbm"


def test_a_loop_counts_as_often_as_it_turns_and_fast_memory_not_at_all(array):
    """The carried activations stay in fast memory: only weights, input and output move."""

    def layers(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    program = compiled(layers, array(4096, 4096), array(12, 4096, 4096))
    found = compiled_cost.cost_of(program)
    assert found.flops == 12 * 2 * 4096**3
    assert found.flops > 11 * program.cost_analysis()["flops"]  # XLA counts the body once
    assert found.bytes == pytest.approx(2 * 4096**2 * (12 + 1 + 1), rel=1e-4)
    assert found.unknown_loops == 0


def test_a_loop_that_may_end_early_counts_in_full(array):
    def until_done(x, weight):
        def more(carry):
            step, x = carry
            return (step < 7) & (jnp.max(x) < 1)

        return jax.lax.while_loop(more, lambda c: (c[0] + 1, c[1] @ weight), (jnp.int32(0), x))

    assert cost(until_done, array(256, 2048), array(2048, 2048)).flops == 7 * 2 * 256 * 2048**2


def test_a_loop_without_a_known_end_is_reported_and_turns_as_often_as_it_is_told(array):
    def until_done(x, weight):
        return jax.lax.while_loop(lambda x: jnp.max(x) < 1, lambda x: x @ weight, x)

    program = compiled(until_done, array(256, 2048), array(2048, 2048))
    once, often = compiled_cost.cost_of(program), compiled_cost.cost_of(program, turns=9)
    assert once.unknown_loops == 1
    assert once.flops == 2 * 256 * 2048**2
    assert often.flops == 9 * once.flops


def test_an_update_in_place_moves_the_update_alone(array):
    def fill(cache, rows):
        def write(cache, item):
            step, row = item
            return jax.lax.dynamic_update_slice(cache, row[:, None], (0, step, 0)), None

        return jax.lax.scan(write, cache, (jnp.arange(100), rows))[0]

    found = cost(
        fill, array(64, 4096, 512, dtype=jnp.float32), array(100, 64, 512, dtype=jnp.float32),
        donate_argnums=0,
    )  # fmt: skip
    moved = 4 * 100 * 64 * 512
    assert found.bytes == pytest.approx(2 * moved, rel=0.01)  # each row is read and written
    cache_and_rows = 4 * 64 * 4096 * 512 + moved
    assert found.hbm_gib == pytest.approx(cache_and_rows / 2**30, rel=0.01)  # and no copy


def test_a_copied_cache_is_seen(array):
    """The same update of a cache that is not donated: it is copied first."""
    cache, row = array(64, 4096, 512), array(64, 1, 512)

    def write(cache, row):
        return jax.lax.dynamic_update_slice(cache, row, (0, 5, 0))

    size = 2 * 64 * 4096 * 512
    assert cost(write, cache, row, donate_argnums=0).bytes < 0.01 * size
    assert cost(write, cache, row).bytes == pytest.approx(2 * size, rel=0.01)


def test_a_gather_reads_its_rows_alone(array):
    found = cost(
        lambda table, ids: jnp.take(table, ids, axis=0),
        array(262_144, 1152),
        array(2048, dtype=jnp.int32),
    )
    assert found.bytes == pytest.approx(2 * 2 * 2048 * 1152, rel=0.01)


def test_an_all_reduce_is_counted_with_what_a_ring_sends(array, mesh):
    found = cost(
        lambda a, b: a @ b,
        array(1024, 8192, spec=P(None, "chips")),
        array(8192, 16384, spec=P("chips")),
        out_shardings=NamedSharding(mesh, P()),
    )
    sent = 2 * 7 / 8 * 2 * 1024 * 16384
    assert found.collectives == {"all-reduce": {"count": 1, "scalars": 0, "bytes": sent}}
    assert found.seconds["links"] == sent / compiled_cost.LINK_BYTES_PER_SECOND
    assert found.bound == "links"
    assert found.flops == 2 * 1024 * 8192 * 16384 / 8


def test_collectives_in_a_loop_count_in_every_turn_and_scalars_are_told_apart(array, mesh):
    """A decode step that gathers its weights, and agrees over the links on whether to go on."""

    def steps(x, weight):
        def more(carry):
            return (carry[0] < 5) & (jax.lax.pmax(jnp.max(carry[1]), "chips") < 1)

        def advance(carry):
            step, x = carry
            return step + 1, x @ jax.lax.all_gather(weight, "chips", tiled=True)

        return jax.lax.while_loop(more, advance, (jnp.int32(0), x))[1]

    found = cost(
        jax.shard_map(steps, mesh=mesh, in_specs=P("chips"), out_specs=P("chips"), check_vma=False),
        array(8192, 4096, spec=P("chips")),
        array(4096, 4096, spec=P("chips")),
    )
    gathered = 5 * 7 / 8 * 2 * 4096 * 4096
    assert found.collectives["all-gather"] == {"count": 5, "scalars": 0, "bytes": gathered}
    agreed = found.collectives["all-reduce"]
    assert agreed["count"] == agreed["scalars"] == 5


def test_the_other_collectives_send_what_a_ring_sends(array, mesh):
    def exchange(x):
        moved = jax.lax.ppermute(x, "chips", [(i, (i + 1) % 8) for i in range(8)])
        turned = jax.lax.all_to_all(moved, "chips", 1, 1, tiled=True)
        return jax.lax.psum_scatter(turned, "chips", scatter_dimension=1, tiled=True)

    found = cost(
        jax.shard_map(exchange, mesh=mesh, in_specs=P("chips"), out_specs=P("chips")),
        array(8 * 1024, 8 * 1024, spec=P("chips")),
    )
    own = 2 * 1024 * 8 * 1024
    assert {kind: one["bytes"] for kind, one in found.collectives.items()} == {
        "collective-permute": own,
        "all-to-all": 7 / 8 * own,
        "reduce-scatter": 7 / 8 * own,
    }


def test_a_collective_that_runs_beside_products_is_counted_once(array, mesh):
    """Each product that it runs beside names it again, and passes its buffers on."""

    def layers(x, weights, table):
        whole = jax.lax.all_gather(table, "chips", tiled=True, axis=1)
        for weight in weights:
            x = jnp.tanh(x @ weight)
        return x @ whole

    replicated = [array(4096, 4096)] * 4
    program = compiled(
        jax.shard_map(
            layers,
            mesh=mesh,
            in_specs=(P("chips"), [P()] * 4, P(None, "chips")),
            out_specs=P("chips"),
            check_vma=False,
        ),
        array(8 * 2048, 4096, spec=P("chips")),
        replicated,
        array(4096, 32768, spec=P(None, "chips")),
    )
    text = program.as_text()
    assert "AsyncCollectiveStart" in text
    assert len(compiled_cost.re.findall(r" all-gather\(", text)) > 2
    found = compiled_cost.cost_of(program)
    table = 2 * 4096 * 32768
    assert found.collectives["all-gather"] == {"count": 1, "scalars": 0, "bytes": 7 / 8 * table}
    # The slice is read, the table written and read; weights, and the first and last activations.
    moved = 2 * (4 * 4096**2 + 2048 * 4096 + 2048 * 32768) + (1 / 8 + 1 + 1) * table
    assert found.bytes == pytest.approx(moved, rel=0.25)


def test_padding_to_whole_tiles_is_counted(array):
    """The last dimension, 64, takes up 128 places."""
    program = compiled(lambda x: x + 1, array(4096, 4096, 64, dtype=jnp.float32))
    arrays = compiled_cost.arrays_in("f32[4096,64]{1,0:T(8,128)}, f32[4096,64]{0,1:T(8,128)}")
    assert [a.bytes for a in arrays] == [4096 * 128 * 4, 4096 * 64 * 4]
    found = compiled_cost.parse(program.as_text())
    first = found.computations[found.entry].values()
    parameters = [a for i in first if i.opcode == "parameter" for a in i.arrays]
    assert sum(a.bytes for a in parameters) == program.memory_analysis().argument_size_in_bytes
