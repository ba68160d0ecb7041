"""Is this the right text?

Short text is compared word by word, whatever its case, accents, separators and article. A row may
list other names of the gold answer; each of them is right. Dates, times, ratios and JSON are
compared by what they mean. In a list the order counts, unless the question asks for a list and
says nothing of an order.
"""

import json
import re
import unicodedata
from fractions import Fraction

from submission.bench.answers.answer_text import (
    HEDGES,
    JOINING,
    NEGATIONS,
    OPERATORS,
    VERDICT,
    after_lead_in,
    beside_question,
    conclusion,
    plain_text,
    undress,
    without_passage,
    words_of,
)
from submission.bench.answers.measures import in_measure, measure_of, quantity_at
from submission.bench.answers.number_forms import read_number


def normalise(text: str) -> str:
    """Lower case without accents, quotes, separators and a leading article.

    >>> normalise("The U.S.A."), normalise("7, 12 and 31"), normalise("Café-Bar")
    ('usa', '7 12 and 31', 'cafe bar')
    """
    text = unicodedata.normalize("NFKD", plain_text(text).casefold())
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"^(\W*)(?:the|an?) (?=[^\W\d_])", r"\1", text)  # but "a, b" is a list
    text = re.sub(r"(?<=[a-z])_(?=\d)|(?<!\w)'(?=\w)|(?<=\w)'(?!\w)", "", text)  # H_2O, ['a']
    text = re.sub(r"\b(?:[^\W\d_]\.){2,}", lambda m: m[0].replace(".", ""), text + " ")
    text = re.sub(r"(?<=\d) (?=[°%])|[¡¿]", "", text)
    text = re.sub(r"\bmt\.? (?=[a-z])", "mount ", text)
    if re.fullmatch(r"\W*\w(?:-\w)+\W*", text):  # t-b-l
        text = text.replace("-", "")
    text = re.sub(r"[.!,;:\s]+(?=\s|$)|[,;\"\s]+|(?<=[^\W\d_])[-–—](?=[^\W\d_])", " ", text)
    text = re.sub(r"^\s*[(\[{](.*)[)\]}]\s*$", r"\1", text.replace("&", " and ").strip())
    return " ".join(text.split())


# **Lists**: items between commas, arrows, "and", "then", or numbered.


BETWEEN = re.compile(
    r"\s*(?:[,;\n]|[-=]+>|[→⟶⇒]|(?<=\s)[<>+](?=\s)|\b(?:and|then|next|finally|lastly)\b)\s*"
)
MARK = re.compile(r"(?:^|(?<=\s))(?:[-*•]|\(?\d{1,2}(?:[.)]|st|nd|rd|th))\s+(?=\S)")
ORDER = re.compile(
    r"\b(?:order|sort|arrange|rank|sequence|first|smallest|largest|least|greatest|next|steps?"
    r"|backwards?|reverse\w*|alphabetical\w*|from|then|stages?)\b"
)
LISTED = re.compile(r"\b(?:name|list|which|what are|give|find all|identify|any order)\b")


def items(text: str) -> list[str]:
    """The items of a list, normalised.

    >>> items("First the dog, then the cat"), items("1) dog 2) cat"), items("a -> b and c")
    (['dog', 'cat'], ['dog', 'cat'], ['a', 'b', 'c'])
    """
    text = re.sub(
        r"^first(?:ly)?,?\s|\sfirst(?=,)", "", text.strip(" ()[]{}."), flags=re.IGNORECASE
    )
    if len(MARK.findall(text)) > 1:
        text = MARK.sub(",", text)
    return [item for part in BETWEEN.split(text) if (item := normalise(part))]


def same_items(gold: str, claim: str, question: str) -> bool:
    """Is the claim the gold list, in its order where the order counts?

    >>> same_items("a, b", "b and a", "Name the two."), same_items("a, b", "b, a", "Sort them.")
    (True, False)
    """
    wanted, said, asked = items(gold), items(claim), question.lower()
    signs = set(re.findall("[<>]", re.sub("[-=]+>", "", claim)))
    values = [whole_number(item) for item in said]
    places = re.findall(r"\b(\d{1,2})(?:st|nd|rd|th)\b", claim)
    if places != sorted(places, key=int):
        return False  # 2nd Bob, 1st Ann
    if signs and ("<" in gold or ">" in gold or len(signs) > 1):
        return False  # "x > 3" is no list
    falls = re.search(
        r"\b(?:largest|greatest|highest|tallest|descending|decreasing)\b.* to |descend", question
    )
    rises = re.search(r"\b(?:smallest|least|lowest|shortest)\b.* to |ascend|increas", question)
    if (signs == {">"} and rises and not falls) or (signs == {"<"} and falls and not rises):
        return False
    if signs and None not in values and values != sorted(values, reverse=signs == {">"}):
        return False  # 1 > 2 > 3 is wrong
    free = LISTED.search(asked) and (not ORDER.search(asked) or "any order" in asked)
    return wanted == said or bool(free and sorted(wanted) == sorted(said))


# **Dates, times, ratios.** Who is asked to write one in another way, and repeats it, has not
# answered.


MONTHS = "january february march april may june july august september october november december"
MONTH = rf"(?P<month>(?:{'|'.join(m[:3] for m in MONTHS.split())})[a-z]*)\.?"
DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,? )?"
WHEN = tuple(
    re.compile(rf"(?:\b(?:on|at|the) )*{pattern}", re.IGNORECASE)
    for pattern in (
        r"\b(?P<month>0?[1-9]|1[0-2])/(?P<day>1[3-9]|2\d|3[01])/(?P<year>\d{4})\b",
        r"\b(?P<day>1[3-9]|2\d|3[01])/(?P<month>0?[1-9]|1[0-2])/(?P<year>\d{4})\b",
        rf"{WEEKDAY}(?:the )?{DAY}(?: day)?(?: of)? {MONTH},? (?P<year>\d{{4}})\b",
        rf"{WEEKDAY}\b{MONTH} (?:the )?{DAY},? (?P<year>\d{{4}})\b",
        rf"\b{MONTH} (?:the )?{DAY}(?P<year>)\b",
        rf"\b{DAY}(?: of)? {MONTH}(?P<year>)(?![\w])",
        r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)\b",
        r"\b(?P<hour>\d{1,2})(?::(?P<minute>\d\d))? ?(?P<half>[ap])\.?m\b\.?",
        r"\b(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::00)?\b(?! ?:)",
    )
)


def moment(text: str) -> tuple[tuple, str] | None:
    """The one date or time in a text, and the rest of it; None if there is none, or two.

    >>> moment("On July 4th, 1776."), moment("7 PM or 8 PM")
    ((('1776', 7, 4), '.'), None)
    """
    for pattern in WHEN:
        found = list(pattern.finditer(text))
        if len(found) == 1:
            said, match = found[0].groupdict(), found[0]
            rest = text[: match.start()] + text[match.end() :]
            if "hour" in said:
                hour, half = int(said["hour"]), (said.get("half") or "").lower()
                hour = hour % 12 + 12 * (half == "p") if half else hour
                return (hour, int(said["minute"] or 0)), rest
            month = said["month"].lower()
            number = int(month) if month.isdigit() else 1 + MONTHS[: MONTHS.find(month)].count(" ")
            return (said["year"], number, int(said["day"])), rest
        if found:
            return None
    return None


DOUBTS = HEDGES | NEGATIONS | OPERATORS | {"before", "after", "but", "since", "until"}


def same_moment(gold: str, claim: str, question: str) -> bool:
    """Do both texts name the same date or time, the claim in a form that the question has not?"""
    claim = re.sub(r"(?<=\d) o'clock\b", "", claim)
    claim = re.sub(r"(?<=\d) in the (?:afternoon|evening)\b", " pm", claim)
    claim = re.sub(r"(?<=\d) in the morning\b", " am", claim)
    wanted, said = moment(gold), moment(claim)
    if re.search(r"24[- ]hour", question) and re.search(r"\d ?[ap]\.?m", claim, re.I):
        return False
    if not wanted or wanted[1].strip(" .") or not said or wanted[0] != said[0]:
        return False
    rest = re.sub(r"\d+", lambda m: "" if m[0] in question else m[0], said[1])
    extra, again = set(words_of(said[1])) - set(words_of(question)), moment(question)
    repeated = again and again[0] == said[0]
    return not (repeated or extra & DOUBTS or len(extra) > 4 or re.search(r"[\d?]", rest))


RATIO = re.compile(r"(?<=\d) ?(?:[:∶]|to) ?(?=\d)")


def as_json(text: str) -> object:
    """What a text says as JSON; None if it is none."""
    try:
        return json.loads(text) if text[:1] in ("{", "[") else None
    except ValueError:
        return None


def whole_number(text: str) -> Fraction | None:
    """The value of a text that is one number and nothing else.

    >>> whole_number("seven") == whole_number("7"), whole_number("7 cats") is None
    (True, True)
    """
    reading = read_number(text.strip(" ."))
    return reading.value if reading and not reading.rest else None


def same_duration(gold: str, claim: str) -> bool:
    """The same length of time, in whatever units: "1 h 35 min"."""
    wanted, said = quantity_at(gold), quantity_at(claim)
    units = [measure_of(r) for r in (wanted, said)] if wanted and said else [None]
    alone = all(r and len(words_of(r.rest)) == 1 for r in (wanted, said))
    return bool(
        alone and all(units) and units[0].kind == units[1].kind == "time" and units[0].size
        and in_measure(said, units[0]) == wanted.value
    )  # fmt: skip


FORMULA_NAME = re.compile(r"(?:[A-Z][a-z]?\d*){1,5}")


def named_by(name: str, symbol: str) -> bool:
    """May this be the chemical symbol of a name?

    >>> named_by("carbon dioxide", "CO2"), named_by("oxygen", "CO2")
    (True, False)
    """
    return FORMULA_NAME.fullmatch(symbol) is not None and symbol[0] == name[:1].upper()


PLACES = "first|second|third|fourth|fifth|sixth"
SURNAME = re.compile(r"[A-Z][\w.-]+ (?:[A-Z][\w.-]* )?((?:da |de |van |von )*[A-Z][\w-]+)")
SHORTENED = "monday tuesday wednesday thursday friday saturday sunday".split() + MONTHS.split()


def split_reason(text: str) -> tuple[str, str]:
    """An answer and the reason behind it, which may hold no hedge; ("text", "") without one.

    >>> split_reason("a cat, because it purrs"), split_reason("a cat because or a dog")
    (('a cat', 'because it purrs'), ('a cat because or a dog', ''))
    """
    match = re.search(
        r"[,.;:(—–-]*\s(?=\(?(?:because|since)\s)"
        r"|[,;] (?=(?:as|due to|which (?:is|was))\s)(?!which is (?:option|choice|answer|letter)\b)"
        r"|[:;] (?=(?:it|they|he|she)\s)|, (?=in (?:[A-Z]\w+ )?\d{4}$|from the )"
        r"|, (?=(?:the|an?) \w+ (?!and|or)\w+)|, (?=at \d)"
        r"|, (?=(?:who|[a-z]{3,}ing (?:the|an?|it|about|over|in)) [^,]+$)",
        text, re.IGNORECASE,
    )  # fmt: skip
    if match is None or HEDGES & set(words_of(text[match.end() :])):
        return text, ""
    return text[: match.start()], text[match.end() :]


ASKED_NOUN = re.compile(
    r"\b(?:which|what) (?:is the \w+ |(?:type|kind|sort) of )?(?!is\b|are\b|was\b)(\w{3,})"
)


def claims_other(reason: str, head: str, question: str) -> bool:
    """Does a reason give another answer: "because it is Lyon", "since the capital is Lyon"?

    >>> asked = "What is the capital of France?"
    >>> claims_other("because it is Lyon", "Paris", asked)
    True
    >>> claims_other("because it is the seat of the king", "Paris", asked)
    False
    """
    said = reason.split(" ", 1)[-1].strip(" .)")
    other = beside_question(said, question) or after_lead_in(said)
    named = other != said and len(other.split()) <= 3 and normalise(other) not in normalise(head)
    named &= not re.match("(?:the|an?) ", other)
    return named and other[:1].isupper() == head[:1].isupper()


def without_asked(text: str, question: str) -> str:
    """A normalised text without the question's words at both its ends.

    >>> without_asked("the Pacific Ocean", "Which ocean is the largest?")
    'pacific'
    """
    told = re.sub(r":.*|\"[^\"]*\"|'[^']*'", "", question.replace("\n", " "))  # no data
    words = [] if "\n" in text or len(items(text)) > 1 else normalise(text).split()
    asked = (set(normalise(told).split()) | JOINING) - DOUBTS - {"order"}
    while words and words[-1] in asked:
        words.pop()
    while words and words[0] in asked:
        words.pop(0)
    return " ".join(words)


def check_text(
    gold: str, answer: str, aliases: tuple[str, ...] = (), question: str = ""
) -> bool | None:
    """The same words in the same order as the gold answer or one of its other names.

    >>> check_text("7, 12, 31", "7 12 31"), check_text("cat red", "red cat")
    (True, False)
    >>> check_text("United States", "the U.S.", aliases=("USA", "US"))
    True
    """
    question = without_passage(question)
    golds = [plain_text(name) for name in (gold, *aliases) if normalise(name)]
    if not normalise(gold):
        return None
    names = {normalise(name) for name in golds}
    names |= {name.removeprefix("mount ") for name in names}
    if re.search(r"\bwho\b", question, re.I):
        names |= {m[1].lower() for g in golds if (m := SURNAME.fullmatch(g))} - set(
            words_of(question)
        )
        whole = re.fullmatch(r"(\w+), (\w+)|(\w+) \w[\w.]* (\w+)", undress(answer))
        first = whole and f"{whole[2] or whole[3]} {whole[1] or whole[4]}"  # Shelley, Mary
        if first and normalise(first) in names:
            return True
    if (meant := as_json(gold.strip())) is not None:
        return repr(as_json(answer.strip(" `\n"))) == repr(meant) or answer.strip() == gold.strip()
    listed = [name for name in golds if len(items(name)) > 1]
    has_ratio = any(RATIO.search(name) for name in golds)
    ratios = {normalise(RATIO.sub(":", name)) for name in golds} if has_ratio else set()
    asked = set(words_of(question))

    def matches(text: str) -> bool:
        return (
            normalise(text) in names
            or normalise(RATIO.sub(":", text)) in ratios
            or any(same_items(name, text, question) for name in listed)
            or (" ".join(items(text)) in names and not re.search(r"[\d<>]", text))
            or any(same_moment(name, text, question) for name in golds)
            or any(same_duration(name, text) for name in golds)
            or (
                len(short := normalise(text)) > 2
                and any(name in SHORTENED and name.startswith(short) for name in names)
            )
        )

    whole = plain_text(answer)
    text = undress(whole)
    if matches(whole) or matches(text):
        return True
    head, reason = split_reason(text)
    again = re.search(r"\bi\.e\.|namely|to say\b", reason)
    if reason and (again or claims_other(reason, head, question)):
        return False
    head = VERDICT.sub("", head)
    head = re.sub(r"(?<=\w) (?:out )?of the (?:two|three|four|five)$", "", head)
    if denied := re.fullmatch(r"(.+), (?:and )?(?:not|rather than|instead of) (.+)", head, re.I):
        head = head if normalise(denied[2]) in normalise(denied[1]) else denied[1]
    if twice := re.fullmatch(r"(.+?) ?\((.+)\)", head):
        explained = re.fullmatch(
            r"[\d\W]+|\d+ [a-z]+|(?:the|an?|it|they|in|near|from) .+", twice[2]
        ) or normalise(twice[1]).startswith(normalise(twice[2]))  # crescendo (cresc.)
        for symbol, name in (twice.groups(), twice.groups()[::-1]):  # CO2 (carbon dioxide)
            if named_by(name, symbol) and matches(name):
                return True
        again = set(words_of(twice[2])) <= asked  # Iron (Fe)
        if not (explained or again) and normalise(twice[1]) not in normalise(twice[2]):
            return {normalise(part) for part in twice.groups()} <= names
        head = twice[1]
    if not re.search(r"\d", gold):  # painted it in the early 16th century
        century = r"(?:\d{4}|the (?:\w+ )?\d\dth century)"
        head = re.sub(rf" in {century}$", "", head)
    relative = re.fullmatch(r"((?:[^\s,]+ ){1,4}?)(?<!by )(?:that|who) (\S+ \S+ \S+.*)", head)
    if relative and 2 * len(set(words_of(relative[2])) & asked) >= len(words_of(relative[2])):
        head = relative[1].strip()  # the heart that pumps blood
    if matches(head):
        return True
    place = re.fullmatch(r"([^,]+), ([A-Z][^,]{2,})", head)  # Paris, France
    if (
        place
        and words_of(place[2])
        and set(words_of(place[2])) <= asked
        and not set(words_of(place[1])) & asked
    ):
        head = place[1]
    label = re.fullmatch(r"([^\W\d][\w ]{0,30}): (.+)", head)
    if label and set(words_of(label[1])) <= asked | {"in", "alphabetical", "order", "sorted"}:
        head = label[2]
    left, equals, right = (part.strip() for part in head.partition("="))
    known = set(re.findall(r"\d+", left)) <= set(re.findall(r"\d+", question))
    told = left.lower() in question.lower() or (known and re.search(r"\d", left))
    claim = right if equals and left and told else conclusion(head)
    claim = re.sub(r"^it(?:'s| is) ", "", claim)
    years = re.findall(r"\b\d{4}\b", claim)
    if (
        "year" in question.lower()
        and len(years) == 1
        and "BC" not in claim
        and re.fullmatch(r"\d{4}", gold.strip())
    ):
        return years[0] == gold.strip() and not DOUBTS & set(words_of(claim))
    noun = ASKED_NOUN.search(question.lower())
    kind = re.compile(rf"^{noun[1]} | {noun[1]}s?$" if noun else r"(?!)")  # Pacific, of an ocean
    bare_names = {kind.sub("", name) for name in names}
    last = after_lead_in(claim, question)
    told = "," not in claim[: len(claim) - len(last)]
    if told and any(same_items(name, last, question) for name in listed):
        return True
    order = re.search(rf"\b(?:\w+est|{PLACES}|last)\b", claim)
    spoken = {kind.sub("", normalise(text)) for text in (head, claim)}
    if spoken & bare_names and not (order and order[0] not in asked):
        return True
    if beside := beside_question(claim, question).removeprefix("will be "):
        added = {without_asked(beside_question(name, question) or name, question) for name in golds}
        named = kind.sub("", normalise(beside)) in bare_names or matches(beside)
        if named or without_asked(beside, question) in added - {""}:
            return True
        number = whole_number(gold)
        if number is not None and whole_number(beside) == number and beside not in question:
            return True  # one fourth of the pizza
        order = re.search(rf"\b(?:\w+est|{PLACES}|last|order|sorted|list)\b", beside)
        if not order or order[0] not in asked | {"order", "sorted", "list"}:
            return False  # "The longest word is elephant."
    claim = after_lead_in(claim, question)
    short = without_asked(claim, question)  # the planet Mars
    if short and short in names | {without_asked(name, question) for name in golds}:
        return True
    number, words = whole_number(gold), question.strip(" .?!").split()
    if number is not None and re.search("[a-z]", (gold + claim).lower()):
        return whole_number(claim) == number and claim not in words  # "Write 47 in words."
    return matches(claim)
