"""The real Gemma 3 270M, where it has been fetched."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from small_gemma import cache

from conftest import ROOT
from submission.bench.answers import prompts
from submission.bench.policy import model
from submission.bench.settings import host
from submission.essay import profiles

SMALL = profiles.SMALL
FOLDER = host.model_cache() / SMALL.model.folder
pytestmark = pytest.mark.skipif(
    not FOLDER.exists() or bool(cache.trouble_of(FOLDER)),
    reason="Gemma 3 270M is not in the cache: scripts/get_small_gemma.py gets it",
)


@pytest.fixture(scope="module")
def real_tokenizer():
    return model.load_tokenizer(FOLDER)


def test_turns_are_single_pieces_and_the_tags_are_not(real_tokenizer):
    for text in ("<start_of_turn>", "<end_of_turn>", "\n"):
        assert len(real_tokenizer.encode(text)) == 1
    assert len(real_tokenizer.encode("<reasoning>")) > 1
    assert real_tokenizer.tokenizer.get_piece_size() == 262_144


def test_bundled_rows_fit_the_lengths_of_the_profile(real_tokenizer):
    lines = (ROOT / "data" / "held_out.jsonl").read_text().splitlines()
    prompts_ = [prompts.render_prompt(json.loads(line)["question"]) for line in lines]
    lengths = [1 + len(real_tokenizer.encode(text)) for text in prompts_]
    assert max(lengths) <= SMALL.lengths.prompt


@pytest.mark.slow
def test_it_loads_by_the_notebooks_call_and_speaks(real_tokenizer, mesh):
    stock = model.load_stock(SMALL.model, model.locate(SMALL.model, minutes=1), mesh)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(stock))) == 268_098_176
    sampler = model.make_sampler(stock, real_tokenizer, 32)
    text = "The three primary colors are red, yellow, and"
    (said,) = sampler([text], max_generation_steps=4, max_prompt_length=16).text
    assert "blue" in said
    table = np.asarray(stock.embedder.input_embedding.get_value())
    assert np.isfinite(table).all()
