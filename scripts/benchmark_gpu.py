"""What `benchmark.py` measures where there is an NVIDIA GPU: Gemma 3 1B, with random weights."""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from benchmark_tiny import (
    greedy,
    grpo_numbers,
    our_grpo_steps,
    padded_batches,
    sft_steps,
    stock_engine,
    stock_grpo_steps,
    useful,
)
from benchmark_tools import (
    Characters,
    Numbers,
    forced_lengths,
    in_turns,
    random_policy,
    spread_lengths,
    step_seconds,
    tiny_parts,
)
from flax import nnx
from jax.sharding import Mesh

from submission.bench.policy import model, rollout
from submission.bench.rows import data, packing, prepared
from submission.bench.settings import config
from submission.essay import profiles


@dataclasses.dataclass(frozen=True)
class Large:
    """What is measured where there is a GPU."""

    stock: config.StockModel
    run: config.Run  # adapter, and the lengths and groups of GRPO
    rows: int  # of a packed SFT batch
    length: int  # tokens per packed row; one example a row is half as long
    batches: tuple[int, ...]  # sequences that are decoded at once
    prompt: int  # tokens, when decoding
    new: int  # tokens


PEAKS = {"NVIDIA H200": (989e12, 4.8e12)}  # dense bfloat16 FLOP/s; bytes/s of memory (data sheet)


def large(name: str) -> Large:
    """The 1B on one GPU of 80 GB or more, or the tiny model with everything small."""
    is_tiny = name == "tiny"
    profile = profiles.TINY if is_tiny else profiles.KAGGLE
    settings = dataclasses.replace(
        profile.grpo,
        steps=3 if is_tiny else 4,
        prompts=2 if is_tiny else 16,
        generations=2 if is_tiny else 8,
        micro_prompts=2,  # 16 completions at once, for Tunix's loss: 2 GB for one array of logits
        save_every=1000,
    )
    profile = dataclasses.replace(
        profile,
        grpo=settings,
        lengths=config.Lengths(prompt=256, completion=16 if is_tiny else 256),
        remat=False,
    )
    run = dataclasses.replace(profiles.read_run({"PROFILE": "tiny"}, "cpu"), profile=profile)
    if is_tiny:
        small = dataclasses.replace(run.model, shape=run.model.shape | dict(num_layers=1))
        return Large(small, run, 2, 128, (2, 8), 16, 16)
    return Large(run.model, run, 4, 2048, (16, 64, 256), 64, 448)


def peaks() -> tuple[float, float]:
    """FLOP/s and bytes/s of this device; NaN where they are not known."""
    kind = jax.devices()[0].device_kind
    return next((peak for name, peak in PEAKS.items() if name in kind), (math.nan, math.nan))


def large_policy(large: Large) -> tuple[nnx.Module, Mesh, int]:
    """A policy with random weights, its mesh, and the numbers in its base."""
    mesh = model.make_mesh(devices=jax.devices()[:1])
    policy = random_policy(large.stock, mesh, large.run.profile.adapter)
    adapter, whole = model.adapter_size(policy)
    return policy, mesh, whole - adapter


def training_flops(shape: Any, parameters: int, sizes: Sequence[int]) -> float:
    """FLOPs of one pass over examples of these sizes, forward and back to the activations.

    Frozen weights have no gradient: 4, not 6, for each weight and token. Attention: 4 forward
    and 8 back for each pair of tokens that see each other and each number of their heads.
    The adapter and whatever is recomputed are not counted.
    """
    pairs = sum(n * (n + 1) / 2 for n in sizes)
    heads = shape.num_layers * shape.num_heads * shape.head_dim
    return 4.0 * parameters * sum(sizes) + 12.0 * pairs * heads


def measure_large_sft(side: str, large: Large, steps: int = 10, skip: int = 3) -> dict:
    """SFT of Gemma 3 1B: packed with our loss; stock, one example a row with Tunix's."""
    policy, mesh, parameters = large_policy(large)
    rng, half = np.random.default_rng(0), large.length // 2
    sizes = rng.integers(half // 4, half // 2, 64 * steps).tolist()
    texts = [rng.integers(4, 600, size).tolist() for size in sizes]
    examples = [data.Tokens(text[: len(text) // 4], text[len(text) // 4 :]) for text in texts]
    if side == "stock":
        stream = padded_batches(examples, 2 * large.rows, half, 0)
    else:
        stream = packing.packed_batches(examples, large.rows, large.length, 0)
    batches = list(itertools.islice(stream, steps))
    chunk = None if side == "stock" else 4096
    stamps = sft_steps(policy, mesh, batches, stock_step=side == "stock", chunk=chunk)
    seconds = step_seconds(stamps, skip)
    found = [np.unique(row[row > 0], return_counts=True)[1] for b in batches for row in b.segments]
    held = np.concatenate(found)
    flops = training_flops(policy.config, parameters, held.tolist()) / len(batches)
    numbers = {
        "tokens a second": float(held.sum()) / len(batches) / seconds,
        "share of the bfloat16 peak": flops / seconds / peaks()[0],
        "ms a step": 1000 * seconds,
        "share of slots used": useful(batches)[1],
    }
    slots = f"{2 * large.rows} × {half} slots, {large.rows} × {large.length}; no padding counted"
    return {side: numbers, "remarks": {"tokens a second": slots}}


def decode_bytes(policy: nnx.Module, parameters: int, rows: int, prompt: int, new: int) -> float:
    """What a decode step must read: every weight once, and what the caches hold, on average."""
    shape = policy.config
    width = policy.embedder.input_embedding.get_value().dtype.itemsize
    held, window = prompt + new / 2, shape.sliding_window_size
    lengths = sum(
        min(held, window) if layer.attn.attn_type.name == "LOCAL_SLIDING" else held
        for layer in policy.layers
    )
    return width * (parameters + rows * lengths * 2 * shape.num_kv_heads * shape.head_dim)


def measure_large_decode(side: str, large: Large, repeats: int = 3) -> dict:
    """Greedy decoding of Gemma 3 1B, groups of 8; all of the call, its prefill included."""
    policy, mesh, parameters = large_policy(large)
    tokenizer, prompt, new = Characters(), large.prompt, large.new
    # Nothing ends early.
    settings = functools.partial(greedy, new, prompt, min(128, new), eos_tokens=[-1])
    numbers: Numbers = {}
    for rows in large.batches:
        texts = [chr(97 + i // 8 % 26) * (prompt - 1) for i in range(rows)]
        if side == "stock":
            engine = stock_engine(policy, tokenizer, prompt + new)
        else:
            engine = rollout.PolicyRollout(policy, tokenizer, mesh, settings())

        def call(engine: Any = engine, texts: list[str] = texts) -> Any:
            with mesh:
                return engine.generate(texts, settings())

        _, best, _ = in_turns({side: call}, repeats)
        floor = new * decode_bytes(policy, parameters, rows, prompt, new) / peaks()[1]
        numbers[f"batch {rows}: tokens a second"] = rows * new / best[side]
        numbers[f"batch {rows}: share of the memory bandwidth"] = floor / best[side]
    return {side: numbers}


def measure_large_grpo(side: str, large: Large, skip: int = 1) -> dict:
    """Whole GRPO steps of Gemma 3 1B, 16 × 8 completions of 256 + 256, forced lengths."""
    policy, mesh, _ = large_policy(large)
    tokenizer, settings = Characters(), large.run.profile.grpo
    tiny, _, sentences, _ = tiny_parts()
    limit = large.run.profile.lengths
    rows = prepared.rows_of_run(tiny, sentences)["grpo"]
    short = {
        name: [e for e in group if len(data.render_prompt(e.question)) < limit.prompt]
        for name, group in rows.groups.items()
    }
    rows = dataclasses.replace(rows, groups=short)
    lengths = spread_lengths(settings.prompts * settings.generations, limit.completion)
    train = stock_grpo_steps if side == "stock" else our_grpo_steps
    with forced_lengths(lengths, tokenizer.eos_id(), tokenizer.pad_id()):
        seconds = train(policy, tokenizer, rows, large.run, mesh)
    return grpo_numbers(side, seconds, skip)


def measure_transformers(large: Large, repeats: int = 2) -> dict:
    """Hugging Face Transformers' `generate`, the same shape and batches, beside ours above."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        return {"remarks": {"": f"{' and '.join(missing)} not installed"}}
    import torch
    import transformers

    if not torch.cuda.is_available():
        return {"remarks": {"": "torch without CUDA"}}
    shape = model.tunix_config(large.stock)
    text_config = transformers.Gemma3TextConfig(
        vocab_size=shape.num_embed,
        hidden_size=shape.embed_dim,
        intermediate_size=shape.hidden_dim,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        sliding_window=shape.sliding_window_size,
    )
    theirs = transformers.Gemma3ForCausalLM(text_config).to("cuda", torch.bfloat16).eval()
    numbers: Numbers = {}
    for rows in large.batches:
        tokens = torch.randint(4, 600, (rows, large.prompt), device="cuda")

        def call(tokens: Any = tokens) -> None:
            theirs.generate(
                tokens, attention_mask=torch.ones_like(tokens), do_sample=False,
                max_new_tokens=large.new, min_new_tokens=large.new,
            )  # fmt: skip
            torch.cuda.synchronize()

        _, best, _ = in_turns({"generate": call}, repeats)
        numbers[f"batch {rows}: tokens a second"] = rows * large.new / best["generate"]
    return {"stock": numbers}
