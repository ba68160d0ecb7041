"""Stock Gemma is read whichever Orbax wrote it, and on however many devices.

The archives in `layouts/` were written by three versions of Orbax on eight devices.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

import flax
import jax
import numpy as np
import pytest
from flax import nnx
from layouts import make
from tunix.models.gemma import model as gemma2_lib
from tunix.models.gemma import params as gemma2_params
from tunix.models.gemma3 import params as gemma3_params

from conftest import ROOT, SMALL_GEMMA_2
from submission.bench.policy import model
from submission.bench.settings import config
from submission.essay import profiles

ARCHIVES = sorted((ROOT / "tests" / "policy" / "layouts").glob("*.tar.xz"))
LAYOUTS = "numpy ocdbt-one ocdbt-eight zarr-one zarr-eight zarr3-eight".split()
CASES = [f"{file.name.removesuffix('.tar.xz')}/{layout}" for file in ARCHIVES for layout in LAYOUTS]
CASES.append("orbax-0.5.0/msgpack")
SHAPES = {
    "gemma3": make.SHAPE | {"sliding_window_size": 16},
    "gemma2": SMALL_GEMMA_2
    | make.SHAPE
    | {"attention_types": (gemma2_lib.AttentionType.LOCAL_SLIDING,)},
}
both_families = pytest.mark.parametrize("family", SHAPES)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of all layouts: `<archive>/<family>-<layout>`."""
    home = tmp_path_factory.mktemp("layouts")
    for file in ARCHIVES:
        with tarfile.open(file) as archive:
            archive.extractall(home / file.name.removesuffix(".tar.xz"), filter="data")
    return home


def stock_of(family, weights):
    return config.StockModel("small", family, weights, shape=SHAPES[family])


def bits(stock):
    """A digest of each weight, by its name in the model."""
    state = flax.traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(stock)))
    return {
        "/".join(map(str, name)): f"{x.dtype} {hashlib.sha256(np.asarray(x).tobytes()).hexdigest()}"
        for name, x in state.items()
    }


def bits_by_tunix(stock, folder, mesh):
    """What Tunix's own loaders make of a checkpoint that they can read."""
    path, shape, dtype = str(folder / stock.weights), model.tunix_config(stock), stock.dtype
    if stock.family == "gemma3":
        return bits(gemma3_params.create_model_from_checkpoint(path, shape, mesh, dtype))
    loaded = gemma2_lib.module_from_linen_variables(
        module_factory=lambda: gemma2_lib.Gemma(shape, rngs=nnx.Rngs(params=0)),
        variables=gemma2_params.load_and_format_params(path)["transformer"],
        map_key_fn=gemma2_lib._map_linen_var_names,
        assign_val_fn=gemma2_lib._assign_linen_params_to_nnx_state,
    )
    nnx.update(loaded, jax.tree.map(lambda x: x.astype(dtype), nnx.state(loaded)))
    return bits(loaded)


@pytest.fixture(scope="module")
def expected(written, mesh):
    """The bits of each family's model, by Tunix's loader from a checkpoint without devices."""
    folder = written / "orbax-0.12.8"
    return {f: bits_by_tunix(stock_of(f, f"{f}-numpy"), folder, mesh) for f in SHAPES}


@both_families
@pytest.mark.parametrize("case", CASES)
def test_a_layout_loads_bit_for_bit(written, mesh, expected, case, family):
    archive, layout = case.split("/")
    stock = stock_of(family, f"{family}-{layout}")
    assert bits(model.load_stock(stock, written / archive, mesh)) == expected[family]


@both_families
@pytest.mark.parametrize("layout", ["ocdbt-one", "zarr-one"])
@pytest.mark.parametrize("archive", ["orbax-0.5.0", "orbax-0.12.8"])
def test_a_tpu_as_the_writer_does_not_matter(
    written, mesh, expected, tmp_path, archive, layout, family
):
    shutil.copytree(written / archive / f"{family}-{layout}", tmp_path / "weights")
    file = tmp_path / "weights" / "_sharding"
    text, names = re.subn("TFRT_CPU_0|cpu:0", "TPU_3(process=0,(1,1,0,0))", file.read_text())
    assert names == len(expected[family]) - 1  # two of the weights are one in the file
    file.write_text(text)
    loaded = model.load_stock(stock_of(family, "weights"), tmp_path, mesh)
    assert bits(loaded) == expected[family]


@both_families
@pytest.mark.parametrize("layout", ["ocdbt-eight", "zarr-eight", "msgpack"])
def test_the_msgpack_file_is_structure_enough(written, mesh, expected, tmp_path, layout, family):
    """As it was before Orbax wrote `_METADATA`."""
    shutil.copytree(written / "orbax-0.5.0" / f"{family}-{layout}", tmp_path / "weights")
    (tmp_path / "weights" / "_METADATA").unlink()
    loaded = model.load_stock(stock_of(family, "weights"), tmp_path, mesh)
    assert bits(loaded) == expected[family]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tiny_gemma_has_the_bits_that_tunixs_loader_reads(tiny_folder, mesh, dtype):
    tiny = profiles.STOCK_MODELS["gemma3_tiny_it"]
    stock = config.StockModel(tiny.name, tiny.family, tiny.weights, shape=tiny.shape, dtype=dtype)
    loaded = model.load_stock(stock, tiny_folder, mesh)
    assert bits(loaded) == bits_by_tunix(stock, tiny_folder, mesh)


EIGHT_DEVICES = """
import gc, json, pathlib, sys
sys.path[:0] = ["scripts", "tests", "tests/policy"]
import jax
import test_layouts
from submission.bench.policy import model

written, found, sliced = pathlib.Path(sys.argv[1]), {}, 0
put = jax.device_put


def on_first(arrays):
    shards = [s.data for x in arrays for s in x.addressable_shards if s.device.id == 0]
    return sum({s.unsafe_buffer_pointer(): s.nbytes for s in shards}.values())


def watched(x, sharding):
    # All that the first device holds so far is what it was given to keep.
    assert on_first(jax.live_arrays()) - before == on_first(placed)
    placed.append(put(x, sharding))
    return placed[-1]


jax.device_put = watched
for replicated in (True, False):
    mesh = model.make_mesh(replicated)
    for case in test_layouts.CASES:
        for family in test_layouts.SHAPES:
            archive, layout = case.split("/")
            gc.collect()
            placed, before = [], on_first(jax.live_arrays())
            stock = test_layouts.stock_of(family, f"{family}-{layout}")
            loaded = model.load_stock(stock, written / archive, mesh)
            found[f"{case} {family} {replicated}"] = test_layouts.bits(loaded)
            sliced += not all(x.sharding.is_fully_replicated for x in placed)
            del loaded, placed
print(json.dumps([jax.device_count(), sliced, found]))
"""


@pytest.mark.slow
def test_eight_devices_read_every_layout_and_hold_no_more_than_their_share(written, expected):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES, str(written)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    devices, sliced, found = json.loads(done.stdout.splitlines()[-1])
    assert devices == 8
    assert sliced == len(found) / 2 == 2 * len(CASES)  # whole on every device, and in slices
    for name, bits_found in found.items():
        assert bits_found == expected[name.split()[1]], name
