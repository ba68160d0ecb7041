"""A small Gemma 3 as a GGUF file: random weights, some of them quantised, and a few pieces.

Its heads are as wide as the real one's: Transformers does not read from a GGUF what the queries
are scaled by, and takes 256 for it.
"""

import gguf
import numpy as np

from submission.bench.settings import config

SHAPE = dict(num_layers=7, num_embed=320, embed_dim=64, hidden_dim=96, num_heads=2, head_dim=256,
             num_kv_heads=1, sliding_window_size=16, local_base_frequency=10_000,
             global_base_frequency=1_000_000)  # fmt: skip
STOCK = config.StockModel("small", "gemma3", "gemma3-270m", shape=SHAPE, dtype="float32")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def pieces():
    """(text, score, type) of 320 pieces, as llama.cpp writes them for Gemma."""
    found = [(text, -1000.0, CONTROL) for text in ("<pad>", "<eos>", "<bos>")]
    found += [("<unk>", -1000.0, UNKNOWN), ("<start_of_turn>", -1000.0, CONTROL)]
    found += [("<end_of_turn>", -1000.0, CONTROL), ("\n\n", -1000.0, USER_DEFINED)]
    found += [("  ", -1000.0, USER_DEFINED)]  # two spaces
    found += [(f"<0x{i:02X}>", -1000.0, BYTE) for i in range(256)]
    words = ["▁", "a", "b", "c", "ab", "▁a", "▁ab", "abc"]
    found += [(word, -float(i), NORMAL) for i, word in enumerate(words)]
    return found + [(f"<unused{i}>", -1000.0, CONTROL) for i in range(320 - len(found))]


def tensors(seed=0):
    """Arrays in float32 by their names in GGUF, in the order of axes in which they are used."""
    rng, s = np.random.default_rng(seed), SHAPE
    width, hidden, head = s["embed_dim"], s["hidden_dim"], s["head_dim"]
    query, pair = s["num_heads"] * head, s["num_kv_heads"] * head

    def draw(*size):
        return rng.normal(0, 0.2, size).astype(np.float32)

    found = {
        "token_embd.weight": draw(s["num_embed"], width),
        "output_norm.weight": 1 + draw(width),
    }
    for i in range(s["num_layers"]):
        layer = {
            "attn_q": draw(query, width), "attn_k": draw(pair, width), "attn_v": draw(pair, width),
            "attn_output": draw(width, query), "ffn_gate": draw(hidden, width),
            "ffn_up": draw(hidden, width), "ffn_down": draw(width, hidden),
            "attn_q_norm": 1 + draw(head), "attn_k_norm": 1 + draw(head),
            **{name: 1 + draw(width) for name in
               ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")},
        }  # fmt: skip
        found |= {f"blk.{i}.{name}.weight": array for name, array in layer.items()}
    return found


def write(path):
    """Writes the file; what its arrays are after quantising, by name."""
    writer, written, s = gguf.GGUFWriter(str(path), "gemma3"), {}, SHAPE
    writer.add_context_length(64)
    writer.add_embedding_length(s["embed_dim"])
    writer.add_block_count(s["num_layers"])
    writer.add_feed_forward_length(s["hidden_dim"])
    writer.add_head_count(s["num_heads"])
    writer.add_head_count_kv(s["num_kv_heads"])
    writer.add_key_length(s["head_dim"])
    writer.add_value_length(s["head_dim"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(float(s["global_base_frequency"]))
    writer.add_sliding_window(s["sliding_window_size"])
    texts, scores, kinds = zip(*pieces(), strict=True)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    for name, array in tensors().items():
        if array.ndim == 2:  # as in the real file, where only norms are in float32
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quantize(array, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            array = gguf.dequantize(packed, kind)
        else:
            writer.add_tensor(name, array)
        written[name] = array
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written
