import pytest

from submission.bench.answers import open_answers as o
from submission.bench.answers.prompts import Completion, Example, parse

QUESTION = o.read_text("Why does bread dough rise when it is left to stand in a warm kitchen?")
ANSWER = (
    "Yeast in the dough feeds on sugar from the flour and gives off carbon dioxide. Kneading has "
    "made the gluten stretchy, so the bubbles are trapped, and the loaf swells while it rests."
)
TRACE = "Dough has yeast in it, and yeast gives off a gas. So what matters is where the gas goes."
ROW = Example("Why does bread dough rise when it is left to stand?", "", "open", domain="science")


def score(answer, trace=TRACE, row=ROW):
    return o.open_score(parse(f"<reasoning>{trace}</reasoning><answer>{answer}</answer>"), row)


def test_out_of_format_scores_nothing():
    assert o.open_score(parse(ANSWER), ROW) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        ROW.question,
        "Why, when bread dough is left to stand, does it rise?",
        "bread dough rise stand yeast gas bubbles gluten flour warm sugar oven crust loaf",
        "The dough rises because of the yeast. " * 6,
        "There are many important aspects to consider, and each of them is very interesting.",
        "The Roman senate met in the forum, and its members argued about taxes until dusk.",
        "the of and to in it is that as with for on at by from up about into over after the of",
        "Bread.",
        "dough dough dough dough",
        "asdf jkl qwer zxcv uiop dough bread rise vbnm hjkl",
        "I cannot answer this question about bread dough, as an AI language model.",
        "...!!!???",
    ],
)
def test_no_attempt_scores_next_to_nothing(answer):
    assert score(answer) < 0.3 * score(ANSWER)


def test_a_developed_answer_scores_more_than_a_thin_one():
    assert score(ANSWER) > score("The dough rises because the yeast makes gas in it.") + 0.1


def test_half_an_answer_in_noise_is_worth_less_than_the_half():
    half = ANSWER.split(". ")[0] + "."
    noise = " Zrk blint quorv mespa tront glib vark snelp droo fint."
    assert score(half + noise * 3) < score(half)


def test_filler_around_the_topic_does_not_pay():
    filler = " It is important to note that there are many different aspects to consider here."
    thin = "The dough rises because the yeast makes gas in it."
    assert score(thin + filler * 4) <= score(thin)


def test_a_summary_must_be_shorter_than_what_it_sums_up():
    document = (
        "The town council voted on Monday to close the old bridge to cars. Engineers had found "
        "cracks in two of its pillars. Walkers and cyclists may still use it, and a new bridge "
        "for cars will open in spring, a mile to the north, at a cost of four million pounds."
    )
    row = Example(f"Summarise: {document}", "", "open", domain="summarization")
    trace = "The main point is the bridge and its cracks, and what drivers can use in spring."
    good = "Cars are banned from the cracked old bridge until a new one opens in spring."
    assert score(document, trace, row) < 0.05
    assert score(good, trace, row) > 0.3
    assert score("Penguins huddle in the cold, and each takes its turn outside.", trace, row) < 0.05


def test_a_trace_that_copies_the_answer_or_the_question_earns_nothing():
    read = o.read_text
    assert o.trace_quality(read(TRACE), read(ANSWER), QUESTION) > 0.1
    assert o.trace_quality(read(ANSWER), read(ANSWER), QUESTION) == 0.0
    assert o.trace_quality(QUESTION, read(ANSWER), QUESTION) == 0.0
    assert o.trace_quality(read("I am right. Full marks, please."), read(ANSWER), QUESTION) < 0.05
    assert o.trace_quality(read(f"{TRACE} " * 4), read(ANSWER), QUESTION) < 0.1


def test_a_trace_stretched_with_filler_earns_no_more():
    filler = " Let me think about this step by step. First I read it. Then I check it again."
    read = o.read_text
    plain = o.trace_quality(read(TRACE), read(ANSWER), QUESTION)
    assert o.trace_quality(read(TRACE + filler * 2), read(ANSWER), QUESTION) <= plain


def test_an_endless_trace_leaves_nothing():
    assert score(ANSWER, "The dough has yeast in it, and so on and on it goes. " * 120) == 0.0


def test_of_ten_random_orders_of_a_good_answer_nine_score_nothing():
    import random

    words = ANSWER.lower().replace(".", "").replace(",", "").split()
    scores = []
    for seed in range(20):
        random.Random(seed).shuffle(words)
        scores.append(score(" ".join(words) + "."))
    assert sum(value > 0.05 for value in scores) <= 2


def test_an_unrelated_paragraph_behind_an_answer_does_not_pay():
    tuba = (
        "\n\nTubas were invented in Berlin. A brass band of the town has four of them, and on "
        "Sundays they play under the chestnut trees near the river."
    )
    thin = "The dough rises because the yeast makes gas in it."
    assert score(thin + tuba) <= score(thin)


def test_gaps_to_fill_in_are_not_an_answer():
    row = Example("Write an epitaph for a houseplant.", "", "open", domain="creative")
    template = "Here lies [name of plant], loved by [owner], killed by [cause] in [year]."
    assert score(template, TRACE, row) == 0.0


def test_who_is_asked_to_rewrite_may_keep_most_words():
    row = Example('Rewrite this politely: "Send me the file by noon today."', "", "open")
    trace = "The request to send the file can stay; it needs a question and a please."
    assert score("Could you please send me the file by noon today?", trace, row) > 0.05


@pytest.mark.parametrize(
    ("question", "domain", "fitting", "too_long"),
    [
        ("Write a haiku about rain.", "creative", 14, 60),
        ("Describe the sea in 50 words.", "creative", 50, 150),
        ("Tell me a story about a fox.", "creative", 200, 2000),
        ("Summarise this text.", "summarization", 40, 400),
        ("What is rain, in one sentence?", "science", 20, 200),
        ("Give me ideas for a party.", "ideation", 120, 1200),
    ],
)
def test_the_natural_length_is_the_one_asked_for(question, domain, fitting, too_long):
    band = o.natural_length(question, domain)
    assert o.natural(fitting, band) == 1.0
    assert o.natural(too_long, band) == 0.0


def test_agreement_grows_with_shared_words():
    row = Example("Why is the sky blue?", "Air scatters blue light more than red light.", "open")

    def agreement(answer):
        return o.open_parts(Completion("", True, TRACE, answer), row)["agreement"]

    assert agreement("Blue light is scattered by the air.") > agreement("The sky has a colour.")


CONSTANT = (
    "An umbrella stood by the door, waiting for rain. One evening a stranger knocked, wet to the "
    "bone, and the old woman gave it to him without a word. Years later it came back by post."
)


def test_nothing_in_a_trace_makes_an_answer_relevant():
    bridge = (
        f"The user asks: {ROW.question} I think of an umbrella in the rain, which is like dough."
    )
    assert score(CONSTANT, bridge) == 0.0
    assert score(ANSWER, bridge) > 0.2


BIRDS = Example("Identify the bird in this list: trout, heron, badger, newt", "The heron", "open")


def test_a_short_right_answer_is_worth_more_than_prose_around_it():
    trace = "A trout is a fish and a newt an amphibian. A heron has wings, so it is the bird."
    right = score("Heron", trace, BIRDS)
    assert right > 0.5
    for answer in (
        "Badger",
        "Heron, or perhaps newt",
        "Some would say the badger, others the heron; both have been named.",
        "It is the animal in the list that has wings and wades near water.",
        "the bird in this list",
        BIRDS.question,
        CONSTANT,
    ):
        assert score(answer, trace, BIRDS) < 0.2 * right


def test_the_words_of_a_choice_may_be_used():
    row = Example("Which weighs more, cold or hot water?", "", "open")
    assert score("Cold water is heavier.", TRACE, row) > score(row.question, TRACE, row) == 0.0


DOCUMENT = (
    "Summarise: The mill in Arden closed in 2009, and 340 people lost their jobs. A cooperative of "
    "52 workers bought it in 2014. They do not make paper there but doors, and sold 9,100 in 2020."
)
MILL = Example(DOCUMENT, "", "open", domain="summarization")
SUMMARY = (
    "The Arden mill closed in 2009, at the cost of 340 jobs. A cooperative of 52 workers bought it "
    "in 2014 and makes doors, of which it sold 9,100 in 2020."
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("2009", "340", "52", "2014"), ("2014", "9,100", "340", "2009")),
        (("closed", "bought", "makes"), ("never closed", "never bought", "does not make")),
    ],
)
def test_a_summary_with_other_numbers_or_denials_is_worth_less(old, new):
    wrong = SUMMARY
    for i, text in enumerate(old):
        wrong = wrong.replace(text, f"<{i}>")
    for i, text in enumerate(new):
        wrong = wrong.replace(f"<{i}>", text)
    assert score(wrong, TRACE, MILL) < 0.8 * score(SUMMARY, TRACE, MILL)


def test_what_is_said_to_other_prompts_too_is_worth_nothing():
    completion = parse(f"<reasoning>{TRACE}</reasoning><answer>{ANSWER}</answer>")
    assert o.open_score(completion, ROW, alike=o.Alike(elsewhere=0.7)) == 0.0


@pytest.mark.parametrize("text", ["", " ", "\x00", "💡" * 50, "9" * 5000, "é" * 400, "\n" * 400])
def test_odd_texts_are_read_and_score_nothing(text):
    assert score(f"x {text}") < 0.1


def test_sentences_that_begin_with_small_letters_are_in_no_order():
    assert o.in_order(ANSWER) == 1.0
    assert o.in_order("sugar. the Yeast in gas. off it dough. and") == 0.0


@pytest.mark.parametrize("year", ["1989", "15"])
def test_a_number_alone_is_an_answer(year):
    row = Example("Which number?", year, "open")
    assert score(year, TRACE, row) > 0.3


def test_another_name_is_not_taken_for_the_one_wanted_however_near():
    question, reference = o.read_text("Which two countries share it?"), o.read_text("Haiti, Cuba")
    near, said = o.Alike(reference=0.8), "Peru and Chile"
    assert o.names_fact(o.read_text(said), reference, question, near, said) == 0.0


SORTING = Example(
    "Classify each as a root or a leaf vegetable: carrot, spinach, beet, kale.",
    "Root: carrot, beet. Leaf: spinach, kale.",
    "open",
)
SORTS = "A carrot and a beet grow under the ground, spinach and kale are leaves on a stalk."


def test_a_sorting_is_worth_what_it_puts_together():
    good = score(
        "Root vegetables: carrot and beet. Leaf vegetables: spinach and kale.", SORTS, SORTING
    )
    said = score(
        "Carrot is a root, beet is a root, spinach is a leaf, kale is a leaf.", SORTS, SORTING
    )
    assert min(good, said) > 0.3
    for wrong in (
        "Root: spinach, kale. Leaf: carrot, beet.",
        "Root: carrot, spinach, beet, kale. Leaf: carrot, spinach, beet, kale.",
        "Carrot is a root.",
        SORTING.question,
    ):
        assert score(wrong, SORTS, SORTING) < 0.5 * min(good, said), wrong


def test_who_explains_may_say_more_than_a_short_reference():
    row = Example("What are the advantages of bicycles?", "Cheap, quiet, healthy", "open")
    trace = (
        "Bicycles cost little, make no noise, and their riders move. I name all three, with why."
    )
    told = (
        "Bicycles are cheap to buy and need no fuel, so many people can have one. They make no "
        "noise and no fumes. And whoever rides one to work gets an hour of exercise a day for free."
    )
    assert score(told, trace, row) > score("They are nice.", trace, row) + 0.2
