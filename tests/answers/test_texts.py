import doctest

import pytest

from submission.bench.answers import open_answers, texts


@pytest.mark.parametrize(
    "sentence",
    [
        "The yeast eats the sugar, and it gives off a gas.",
        "Kneading has made the gluten stretchy.",
        "What it is for is another matter.",
        "In May he came back with her.",
        "She asked for little and got it.",
    ],
)
def test_sentences_are_sound(sentence):
    assert all(s.sound for s in texts.read_text(sentence).sentences)


@pytest.mark.parametrize(
    "salad",
    [
        "yeast bread rise sugar gas dough oven",
        "the of and to in it is that as with for on",
        "gas the and yeast a of sugar gives",
        "it are the case with we is here",
        "Qwzx plorf nnak vrrt",
        "everything that there is ends with the",
    ],
)
def test_salads_are_not(salad):
    assert not any(s.sound for s in texts.read_text(salad).sentences)


def test_the_numbers_of_list_items_are_no_sentences():
    text = texts.read_text("1. Sell old cakes to him.\n2. Wash the cars of it.\n3. A flea market.")
    assert [" ".join(s.words) for s in text.sentences] == [
        "sell old cakes to him",
        "wash the cars of it",
        "a flea market",
    ]


def test_a_paragraph_without_a_link_to_the_question_is_not_kept():
    kept = texts.keep(texts.read_text("The bread rises.\n\nTubas are loud. Owls sleep."), {"bread"})
    assert kept.content == {texts.stem("bread"), texts.stem("rises")}


def test_what_is_said_again_is_not_kept():
    once = texts.keep(texts.read_text("The bread has yeast in it."), {"bread"})
    twice = texts.keep(texts.read_text("The bread has yeast in it. " * 2), {"bread"})
    assert (twice.words, twice.content) == (once.words, once.content)
    assert twice.share == once.share / 2


def test_filler_adds_no_length():
    thin = "The bread has yeast in it."
    filler = " There are many things to consider, and each of them is important in some way."
    assert (
        texts.keep(texts.read_text(thin + filler), {"bread"}).words
        == texts.keep(texts.read_text(thin), {"bread"}).words
    )


def test_a_word_of_every_text_says_less_than_a_rare_one():
    fitted = texts.Vocabulary.fit(["blue light"] + ["light " * 3] * 50)
    assert fitted.idf[texts.stem("light")] < fitted.idf[texts.stem("blue")] < fitted.unseen


def test_a_vocabulary_is_not_changed_by_what_it_weighs():
    fitted = texts.Vocabulary.fit(["red fox", "red hen"])
    before = dict(fitted.idf)
    fitted.weights("a quite different text about owls")
    assert fitted.idf == before


def test_words_in_no_order_clash():
    sentence = "The keeper of the light has put a lamp in the window for the ships at sea."
    assert texts.read_text(sentence).clashes == 0.0
    assert texts.read_text(" ".join(sorted(sentence.split()))).clashes > 0.1
    assert texts.read_text("Sooooo maaaany shiiiips").clashes > 0.1


def test_nothing_is_read_beyond_the_longest_text():
    assert len(texts.read_text("word " * 1_000_000).words) <= texts.LONGEST_TEXT // 5


@pytest.mark.parametrize("chapter", [texts, open_answers])
def test_the_examples_in_the_prose_hold(chapter):
    result = doctest.testmod(chapter)
    assert result.attempted
    assert not result.failed
