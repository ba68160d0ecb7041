"""What is exported is the model that was trained, as the real Transformers and PEFT load it."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import export
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from after import card
from flax import nnx
from transformers import AutoTokenizer
from tunix.models.gemma import params_safetensors as gemma2_reader
from tunix.models.gemma3 import params_safetensors as gemma3_reader

from conftest import FACTS, moved, small_gemma_2
from submission.bench.answers import prompts
from submission.bench.run import checkpoints, run_folder
from submission.essay import profiles

ADAPTERS = {
    "gemma3": profiles.TINY.adapter,
    "gemma2": dataclasses.replace(profiles.TINY.adapter, rank=4),
}
READERS = {"gemma3": gemma3_reader, "gemma2": gemma2_reader}
FAMILIES = pytest.mark.parametrize("family", ["gemma3", "gemma2"])
TORCH = "needs PyTorch: pip install -r tests/interoperability.txt"


@pytest.fixture(scope="module")
def policies(make_policy, mesh):
    """With an adapter that does something; Gemma 2's logits are within reach of its soft cap.

    (With the larger logits of `small_gemma_2` rounding alone comes to more than 1e-4: adding the
    adapter to the weights, in Tunix, changes them by as much.)
    """
    gemma_2 = small_gemma_2(mesh, final_logit_softcap=1.0)
    table = gemma_2.embedder.input_embedding
    table[...] = table[...] / 10
    return {"gemma3": moved(make_policy(), 0.05), "gemma2": moved(gemma_2, 0.05)}


@pytest.fixture(scope="module")
def exported(policies, tiny_folder, tmp_path_factory):
    """Both models in both forms, and the stock models in the form for Transformers."""
    out = tmp_path_factory.mktemp("export")
    for family, policy in policies.items():
        write(out / family, policy, family, tiny_folder)
        graph, adapter, base = nnx.split(policy, nnx.LoRAParam, ...)
        stock = nnx.merge(graph, jax.tree.map(jnp.zeros_like, adapter), base)
        write(out / f"{family}_stock", stock, family, tiny_folder)
    return out


def write(folder, policy, family, tiny_folder):
    export.export_merged(folder / "merged", policy, family, ADAPTERS[family], tiny_folder, "a card")
    export.export_adapter(folder / "adapter", policy, ADAPTERS[family], "the base", "a card")


@pytest.fixture(scope="module")
def tokens(tokenizer, rows):
    """Rows_BT of questions with their traces and answers, longer than both windows (64 and 16)."""
    texts = [
        f"{prompts.render_prompt(e.question)}<reasoning>{e.trace}</reasoning><answer>{e.answer}"
        for e in rows["sft"].examples
    ]
    found = [[tokenizer.bos_id(), *tokenizer.encode(text)] for text in texts]
    return np.array([ids[:72] for ids in found if len(ids) >= 72], np.int32)


def in_dtype(policy, dtype):
    graph, state = nnx.split(policy)
    return nnx.merge(graph, jax.tree.map(lambda x: x.astype(dtype), state))


def forward(policy, tokens_BT):
    rows, length = tokens_BT.shape
    positions_BT = jnp.broadcast_to(jnp.arange(length), (rows, length))
    mask_BTT = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (rows, length, length))
    return policy(jnp.array(tokens_BT), positions_BT, None, mask_BTT)[0]


def tunix_logits(policy, tokens_BT):
    return np.asarray(forward(policy, tokens_BT), np.float32)


def exact_logits(policy, tokens_BT):
    """In double precision.

    In float32 a CPU's own order of summation alone comes to 1.4e-4 at a few of 25,344 positions.
    """
    with jax.enable_x64(True):
        return np.asarray(forward(in_dtype(policy, jnp.float64), tokens_BT))


@pytest.fixture(scope="module")
def ours(policies, tokens):
    return {family: exact_logits(policy, tokens) for family, policy in policies.items()}


def torch_logits(loaded, tokens_BT):
    torch = pytest.importorskip("torch", reason=TORCH)
    with torch.no_grad():
        return loaded(torch.tensor(tokens_BT, dtype=torch.long)).logits.double().numpy()


def transformers_model(folder, **settings):
    pytest.importorskip("torch", reason=TORCH)
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **settings)


@pytest.mark.slow
@FAMILIES
def test_transformers_gives_the_same_logits(exported, ours, tokens, family):
    loaded = transformers_model(exported / family / "merged").double()
    assert np.abs(ours[family]).max() > 0.5  # not all alike
    assert np.abs(torch_logits(loaded, tokens) - ours[family]).max() <= 1e-4


@pytest.mark.slow
@FAMILIES
def test_in_bfloat16_the_top_token_is_the_same(exported, policies, tokens, family, tiny_folder):
    policy = in_dtype(policies[family], jnp.bfloat16)
    write(exported / "half" / family, policy, family, tiny_folder)
    loaded = transformers_model(exported / "half" / family / "merged")
    assert str(loaded.dtype) == "torch.bfloat16"
    whole, half = (tunix_logits(p, tokens) for p in (policies[family], policy))
    same_BT = torch_logits(loaded, tokens).argmax(-1) == half.argmax(-1)
    # Where two tokens are nearly tied, rounding decides, in one library as in the other.
    *_, second_BT, first_BT = np.moveaxis(np.sort(whole, -1), -1, 0)
    decided_BT = first_BT - second_BT > 0.01 * np.abs(whole).max()
    assert decided_BT.mean() > 0.8
    assert same_BT[decided_BT].mean() >= 0.99
    assert same_BT.mean() >= (whole.argmax(-1) == half.argmax(-1)).mean() - 0.01


@pytest.mark.slow
@FAMILIES
def test_peft_puts_the_adapter_on_the_stock_model(exported, ours, tokens, family):
    peft = pytest.importorskip("peft", reason=TORCH)
    stock = transformers_model(exported / f"{family}_stock" / "merged").double()
    before = torch_logits(stock, tokens)
    loaded = peft.PeftModel.from_pretrained(stock, exported / family / "adapter").double()
    assert np.abs(before - ours[family]).max() > 0.1  # the adapter does something
    assert np.abs(torch_logits(loaded, tokens) - ours[family]).max() <= 1e-4


@pytest.mark.slow
@FAMILIES
def test_tunix_reads_its_own_model_back(exported, policies, ours, tokens, family, mesh):
    """Needs no PyTorch: Tunix has a reader for the names of Transformers."""
    policy = policies[family]
    with mesh:
        loaded = READERS[family].create_model_from_safe_tensors(
            str(exported / family / "merged"), policy.config, mesh, dtype=jnp.float32
        )
    np.testing.assert_allclose(exact_logits(loaded, tokens), ours[family], atol=1e-4, rtol=0)


def test_the_tokenizer_gives_the_same_tokens(exported, tokenizer, rows):
    loaded = AutoTokenizer.from_pretrained(exported / "gemma3" / "merged")
    for example in rows["held_out"].examples[:100]:
        text = f"{example.question} <reasoning>{example.trace}</reasoning>"
        assert loaded.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    for text in ("17 + 25 =", "a  b\n\nc", "ünï 日本 ↵", ""):
        assert loaded.encode(text, add_special_tokens=False) == tokenizer.encode(text)


@pytest.mark.parametrize("question", ["What is 17 + 25?", 'Say "hi" to {name} \\ {{ x }}', "a\nb"])
def test_the_chat_template_is_the_prompt_that_was_trained(exported, tokenizer, question):
    loaded = AutoTokenizer.from_pretrained(exported / "gemma3" / "merged")
    messages = [{"role": "user", "content": question}]
    text = loaded.apply_chat_template(messages, tokenize=False)
    assert text == "<bos>" + prompts.render_prompt(question)
    ids = loaded.apply_chat_template(messages, return_dict=False)
    assert ids == [tokenizer.bos_id(), *tokenizer.encode(prompts.render_prompt(question))]
    with pytest.raises(Exception, match="taught to answer one question"):
        loaded.apply_chat_template(messages * 2, tokenize=False)


OLD = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2")
IN_OLD = """
import json, sys
import numpy, torch, transformers
folder, tokens, out = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder)
with torch.no_grad():
    logits = model(torch.tensor(numpy.load(tokens), dtype=torch.long)).logits
numpy.save(out, logits.float().numpy())
question = [{"role": "user", "content": "What is 17 + 25?"}]
print(json.dumps({
    "version": transformers.__version__, "ids": tokenizer("1 + 2")["input_ids"],
    "prompt": tokenizer.apply_chat_template(question, tokenize=False),
}))
"""


@pytest.fixture(scope="module")
def old_transformers(tmp_path_factory):
    """The version before the last great change, beside PyTorch as it is here."""
    pytest.importorskip("torch", reason=TORCH)
    folder = tmp_path_factory.mktemp("old")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*install, *OLD], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{OLD[0]} cannot be had: {done.stderr[-200:]}")
    return folder


@pytest.mark.slow
@FAMILIES
def test_an_old_transformers_reads_the_same(old_transformers, exported, tokens, tmp_path, family):
    folder = exported / family / "merged"
    np.save(tmp_path / "tokens.npy", tokens[:16])
    command = [sys.executable, "-c", IN_OLD, folder, tmp_path / "tokens.npy", tmp_path / "out.npy"]
    environment = os.environ | {"PYTHONPATH": str(old_transformers)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    now = AutoTokenizer.from_pretrained(folder)
    assert found["version"] == "4.57.6"
    assert found["ids"] == now("1 + 2")["input_ids"]
    assert found["prompt"] == "<bos>" + prompts.render_prompt("What is 17 + 25?")
    logits = torch_logits(transformers_model(folder), tokens[:16])
    assert np.abs(np.load(tmp_path / "out.npy") - logits).max() <= 1e-4


CONVERTER = pathlib.Path(os.environ.get("LLAMA_CPP", "")) / "convert_hf_to_gguf.py"


@pytest.mark.slow
@pytest.mark.skipif(not CONVERTER.is_file(), reason="needs LLAMA_CPP, a folder of llama.cpp")
@FAMILIES
def test_llama_cpp_converts_it(exported, tmp_path, family):
    pytest.importorskip("torch", reason=TORCH)
    path = {"PYTHONPATH": str(CONVERTER.parent / "gguf-py")}
    command = [sys.executable, str(CONVERTER), str(exported / family / "merged")]
    made = tmp_path / "model.gguf"
    done = subprocess.run(
        [*command, "--outfile", str(made), "--outtype", "f32"],
        env=os.environ | path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert made.read_bytes()[:4] == b"GGUF"
    assert "Setting add_bos_token to True" in done.stderr


def test_a_text_begins_with_bos_and_only_control_pieces_are_special(exported):
    folder = exported / "gemma3" / "merged"
    loaded = AutoTokenizer.from_pretrained(folder)
    ids = loaded("1 + 2\n<reasoning>")["input_ids"]
    assert ids[0] == loaded.bos_token_id
    assert loaded.bos_token_id not in ids[1:]
    assert loaded.decode(ids, skip_special_tokens=True) == "1 + 2\n<reasoning>"
    for path in folder.glob("*.json"):
        assert str(exported) not in path.read_text()  # no path of this machine


def test_a_question_may_come_in_parts(exported):
    loaded = AutoTokenizer.from_pretrained(exported / "gemma3" / "merged")
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1 + 2?"}]
    whole, pieces = (
        loaded.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        for content in ("What is 1 + 2?", parts)
    )
    assert whole == pieces


@pytest.mark.parametrize("name", ["gemma3_1b_it", "gemma2_2b_it"])
def test_the_base_is_named_as_on_the_hub(name):
    assert name in profiles.STOCK_MODELS
    assert export.HUB_NAMES[name].startswith("google/gemma-")


def test_keys_and_values_share_their_first_factor(policies):
    tensors = export.peft_tensors(policies["gemma3"])
    place = "base_model.model.model.layers.2.self_attn.{}_proj.lora_{}.weight"
    key, value = (tensors[place.format(name, "A")] for name in "kv")
    np.testing.assert_array_equal(key, value)
    assert not np.array_equal(*(tensors[place.format(name, "B")] for name in "kv"))


def test_from_the_command_line(make_policy, tmp_path, capsys):
    actor = tmp_path / "run" / "checkpoints" / "actor"
    checkpoints.write_step(actor, 7, moved(make_policy(), 0.05), None, FACTS)
    arguments = ["--profile", "tiny", "--checkpoint", str(tmp_path / "run")]
    assert export.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert f"{actor / '7'} is now" in capsys.readouterr().out
    card = (tmp_path / "out" / "merged" / "README.md").read_text()
    assert "has not been evaluated" in card
    assert "data/train.jsonl" in card
    settings = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "gemma3_tiny_it"
    assert export.main(["--checkpoint", str(tmp_path / "none")]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err


def run_with(make_policy, folder, **adapter):
    """A run that was trained with another adapter than today's profile has, and its folder."""
    asked = {"PROFILE": "tiny", "RECIPE": "worked_only", "RUN_SEED": "5"}
    run = profiles.read_run(asked, "cpu")
    changed = dataclasses.replace(run.profile.adapter, **adapter)
    run = dataclasses.replace(run, profile=dataclasses.replace(run.profile, adapter=changed))
    checkpoints.write_step(
        folder / "checkpoints" / "actor", 7, moved(make_policy(), 0.05), None, FACTS
    )
    run_folder.write_json(folder / "run.json", run_folder.settings_of(run))
    return run


def test_what_is_exported_is_the_run_that_was_recorded_not_todays_profile(make_policy, tmp_path):
    run_with(make_policy, tmp_path / "run", alpha=16.0)
    arguments = ["--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert export.main(arguments) == 0
    settings = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert settings["lora_alpha"] == 16.0
    card = (tmp_path / "out" / "merged" / "README.md").read_text()
    for said in ("alpha 16", "recipe `worked_only`", "| seed | 5 |", "data/held_out.jsonl"):
        assert said in card


def test_a_checkpoint_that_does_not_fit_its_run_is_refused(make_policy, tmp_path, capsys):
    run_with(make_policy, tmp_path / "run", rank=8)
    assert export.main(["--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "o")]) == 1
    assert "does not fit this model and adapter: " in capsys.readouterr().err
    assert export.main(["--checkpoint", str(tmp_path / "run"), "--profile", "kaggle"]) == 1
    assert "is of the profile tiny, not kaggle" in capsys.readouterr().err


def test_the_card_names_every_source_and_those_that_limit_its_use_first():
    run = profiles.read_run({"PROFILE": "kaggle"}, "cpu")
    sciq = profiles.SOURCES["sciq"]
    grpo = dataclasses.replace(run.profile, grpo_sources=(*run.profile.grpo_sources, sciq))
    table = card.data_table(dataclasses.replace(run, profile=grpo)).splitlines()[2:]
    assert table[0] == "| GRPO | allenai/sciq | CC-BY-NC |"
    read = [*run.sft_sources, *run.profile.grpo_sources, *run.profile.evaluation.sources, sciq]
    assert len(table) == len(read)


def test_the_card_names_what_was_read_instead_of_what_was_to_be():
    run = profiles.read_run({"PROFILE": "kaggle"}, "cpu")
    rows = [("sft", "openai/gsm8k", "MIT"), ("grpo", "allenai/sciq", "CC-BY-NC")]
    data = [dict(stage=stage, location=where, licence=licence) for stage, where, licence in rows]
    table = card.data_table(run, {"data": data}).splitlines()[2:]
    assert table == ["| GRPO | allenai/sciq | CC-BY-NC |", "| SFT | openai/gsm8k | MIT |"]
