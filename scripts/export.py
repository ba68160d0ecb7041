"""Takes a trained model away: for Hugging Face Transformers, and its adapter alone for PEFT.

    python scripts/export.py [--checkpoint DIR] [--profile P] [--out DIR] [--base NAME]

Makes two folders in DIR (by default `outputs/export`):

- `merged/`: the whole model with the adapter added to its weights, for
  `AutoModelForCausalLM.from_pretrained`, with its tokenizer and the prompt as its chat template;
- `adapter/`: the adapter alone, for `PeftModel.from_pretrained` on the stock model.

Neither PyTorch nor PEFT is needed to write them. Gemma's terms apply to both.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from after import trained
from after.card import model_card, results_beside
from flax import nnx
from safetensors import numpy as safetensors
from transformers import GemmaTokenizer

from submission.bench.answers import prompts
from submission.bench.policy import model
from submission.bench.settings import config

NORMS = {
    "pre_attention_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",  # Gemma 3
    "post_attn_norm": "post_attention_layernorm",  # Gemma 2
    "pre_ffw_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn._query_norm": "self_attn.q_norm",
    "attn._key_norm": "self_attn.k_norm",
}
CONTEXT = {"gemma3": 32_768, "gemma2": 8_192}  # positions that the stock models have seen
HUB_NAMES = {"gemma3_1b_it": "google/gemma-3-1b-it", "gemma2_2b_it": "google/gemma-2-2b-it"}
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


# --- Tunix's weights as the matrices of Transformers --------------------------------------------


def host(parameter: Any) -> np.ndarray:
    """A parameter in the host's memory, in float32, so that a sum is rounded only once."""
    return np.asarray(parameter.get_value(), np.float32)


def matrices(layer: Any) -> dict[str, np.ndarray]:
    """The projections of a layer by their names in Transformers, each [out, in]."""
    attention, query_NDH = layer.attn, host(layer.attn.q_einsum.w)
    key_KDH, value_KDH = host(attention.kv_einsum.w)
    output_NHD = host(attention.attn_vec_einsum.w)

    def rows_of_heads(weight_NDH: np.ndarray) -> np.ndarray:
        return weight_NDH.transpose(0, 2, 1).reshape(-1, weight_NDH.shape[1])

    found = {
        "self_attn.q_proj": rows_of_heads(query_NDH),
        "self_attn.k_proj": rows_of_heads(key_KDH),
        "self_attn.v_proj": rows_of_heads(value_KDH),
        "self_attn.o_proj": output_NHD.reshape(-1, output_NHD.shape[-1]).T,
    }
    return found | {f"mlp.{name}": host(getattr(layer.mlp, name).kernel).T for name in PROJECTIONS}


def low_rank(layer: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """LoRA's factors of a layer by the names of their projections: [rank, in] and [out, rank].

    Keys and values are one weight in Tunix: they share their first factor, and so do the copies
    of it here.
    """
    found = {}

    def add(name: str, first: np.ndarray, second: np.ndarray) -> None:
        rank = second.shape[0]
        found[name] = first.reshape(-1, rank).T, second.reshape(rank, -1).T

    for module, name, kernel, place in (
        (layer.attn.q_einsum, "self_attn.q_proj", "w", ()),
        (layer.attn.kv_einsum, "self_attn.k_proj", "w", (slice(None), 0)),
        (layer.attn.kv_einsum, "self_attn.v_proj", "w", (slice(None), 1)),
        (layer.attn.attn_vec_einsum, "self_attn.o_proj", "w", ()),
        *((getattr(layer.mlp, name), f"mlp.{name}", "kernel", ()) for name in PROJECTIONS),
    ):
        if hasattr(module, f"{kernel}_lora_a"):
            second = host(getattr(module, f"{kernel}_lora_b"))
            add(name, host(getattr(module, f"{kernel}_lora_a")), second[place])
    return found


def merged_tensors(policy: nnx.Module, adapter: config.Adapter) -> dict[str, np.ndarray]:
    """The whole model, adapter added, by the names of Transformers, in the dtype of its base."""
    dtype = policy.embedder.input_embedding.get_value().dtype
    found = {
        "model.embed_tokens.weight": host(policy.embedder.input_embedding),
        "model.norm.weight": host(policy.final_norm.scale),
    }
    for number, layer in enumerate(policy.layers):
        deltas = low_rank(layer)
        for name, matrix in matrices(layer).items():
            if name in deltas:
                first, second = deltas[name]
                matrix = matrix + adapter.alpha / adapter.rank * (second @ first)
            found[f"model.layers.{number}.{name}.weight"] = matrix
        for ours, theirs in NORMS.items():
            place, _, last = ours.rpartition(".")
            norm = getattr(getattr(layer, place) if place else layer, last, None)
            if norm is not None:
                found[f"model.layers.{number}.{theirs}.weight"] = host(norm.scale)
    return {name: np.ascontiguousarray(x.astype(dtype)) for name, x in found.items()}


def peft_tensors(policy: nnx.Module) -> dict[str, np.ndarray]:
    """The adapter by the names of PEFT, in float32."""
    found = {}
    for number, layer in enumerate(policy.layers):
        for name, factors in low_rank(layer).items():
            for letter, factor in zip("AB", factors, strict=True):
                key = f"base_model.model.model.layers.{number}.{name}.lora_{letter}.weight"
                found[key] = np.ascontiguousarray(factor)
    return found


# --- The files beside them ----------------------------------------------------------------------


def model_settings(policy: nnx.Module, family: str, tokenizer: Any) -> dict[str, Any]:
    """`config.json`, in words that old and new versions of Transformers understand."""
    shape = policy.config
    settings = {
        "model_type": {"gemma3": "gemma3_text", "gemma2": "gemma2"}[family],
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "torch_dtype": str(policy.embedder.input_embedding.get_value().dtype),
        "vocab_size": policy.embedder.input_embedding.get_value().shape[0],
        "hidden_size": shape.embed_dim,
        "intermediate_size": shape.hidden_dim,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "query_pre_attn_scalar": shape.head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "max_position_embeddings": CONTEXT[family],
        "sliding_window": shape.sliding_window_size,
        "bos_token_id": tokenizer.bos_id(),
        "eos_token_id": tokenizer.eos_id(),
        "pad_token_id": tokenizer.pad_id(),
        "layer_types": [layer_type(layer) for layer in policy.layers],
    }
    if family == "gemma3":
        return settings | {
            "rope_theta": shape.global_base_frequency,
            "rope_local_base_freq": shape.local_base_frequency,
            "final_logit_softcapping": None,
            "attn_logit_softcapping": None,
        }
    return settings | {
        "rope_theta": 10_000,
        "final_logit_softcapping": shape.final_logit_softcap,
        "attn_logit_softcapping": shape.attn_logits_soft_cap,
        # The default implementation leaves the soft cap of attention out. Transformers 4 reads
        # the second of these names, 5 either.
        "attn_implementation": "eager",
        "_attn_implementation": "eager",
    }


def layer_type(layer: Any) -> str:
    """Does a layer see everything, or a window?"""
    is_local = layer.attn.attn_type.name == "LOCAL_SLIDING"
    return "sliding_attention" if is_local else "full_attention"


def chat_template() -> str:
    """The prompt of one question, as training, evaluation and the judges build it, for Jinja."""
    before, after = prompts.PROMPT_TEMPLATE.split("{question}")
    return (
        "{%- if messages | length != 1 or messages[0]['role'] != 'user' -%}"
        "{{ raise_exception('This model was taught to answer one question.') }}{%- endif -%}"
        "{%- set content = messages[0]['content'] -%}"
        "{%- set text = content if content is string else "
        "content | map(attribute='text') | join -%}"
        f"{{{{ bos_token + {json.dumps(before)} + text + {json.dumps(after)} }}}}"
    )


def save_tokenizer(folder: pathlib.Path, model_file: pathlib.Path) -> None:
    """Gemma's SentencePiece model as Transformers keeps tokenizers."""
    (folder / "tokenizer.model").write_bytes(model_file.read_bytes())
    tokenizer = GemmaTokenizer.from_pretrained(folder)
    tokenizer.chat_template = chat_template()
    tokenizer.save_pretrained(folder)
    # What is written of the tokenizer's settings is of this version of Transformers and of this
    # machine. These few say the same to old ones: a text begins with BOS, as for stock Gemma.
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    settings = {name: str(getattr(tokenizer, name)) for name in names}
    settings |= {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False}
    write(folder, {"tokenizer_config.json": settings})
    path = folder / "tokenizer.json"
    pieces = json.loads(path.read_text(encoding="utf-8"))
    bos, begin = tokenizer.bos_token, pieces["post_processor"]
    begin["single"].insert(0, {"SpecialToken": {"id": bos, "type_id": 0}})
    begin["pair"] = [*begin["single"], *begin["pair"][1:]]
    begin["special_tokens"][bos] = {"id": bos, "ids": [tokenizer.bos_token_id], "tokens": [bos]}
    path.write_text(json.dumps(pieces, ensure_ascii=False), encoding="utf-8")


def write(folder: pathlib.Path, files: Mapping[str, Any]) -> None:
    """Text as it is, tensors as safetensors, everything else as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if name.endswith(".safetensors"):
            safetensors.save_file(content, folder / name, metadata={"format": "pt"})
        elif isinstance(content, str):
            (folder / name).write_text(content)
        else:
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def export_merged(
    folder: pathlib.Path,
    policy: nnx.Module,
    family: str,
    adapter: config.Adapter,
    stock: pathlib.Path,
    card: str,
) -> None:
    """The whole model, for Transformers; its tokenizer is in the folder of the stock model."""
    settings = model_settings(policy, family, model.load_tokenizer(stock))
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    write(
        folder,
        {
            "model.safetensors": merged_tensors(policy, adapter),
            "config.json": settings,
            # Trained to end with <eos> alone, and evaluated greedily.
            "generation_config.json": {name: settings[name] for name in ids} | {"do_sample": False},
            "README.md": card,
        },
    )
    save_tokenizer(folder, stock / "tokenizer.model")


def export_adapter(
    folder: pathlib.Path, policy: nnx.Module, adapter: config.Adapter, base: str, card: str
) -> None:
    """The adapter alone, for PEFT."""
    tensors = peft_tensors(policy)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
    }
    write(
        folder,
        {"adapter_model.safetensors": tensors, "adapter_config.json": settings, "README.md": card},
    )


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="export.py", description=__doc__.split("\n")[0])
    trained.add_options(parser)
    parser.add_argument("--out", type=pathlib.Path, default=trained.ROOT / "outputs" / "export")
    parser.add_argument("--base", help="the stock model's name on the hub that you use")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    try:
        run, step, policy, _, _ = trained.opened(options)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    base = options.base or HUB_NAMES.get(run.model.name, run.model.name)
    card, adapter = model_card(run, base, results_beside(step)), run.profile.adapter
    stock = model.locate(run.model, run.profile.download_minutes)
    export_merged(out / "merged", policy, run.model.family, adapter, stock, card)
    export_adapter(out / "adapter", policy, adapter, base, card)
    print(f"{step} is now {out / 'merged'} and {out / 'adapter'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
