"""What people write around an answer.

Nobody writes a bare `42`. It comes as `**42**`, `$\boxed{42}$`, "The answer is 42.", `４２`. Four
things are taken off before anything is compared: typography (one minus sign instead of five,
`⁶` as `^6`, `½` as `1/2`), LaTeX and Markdown, a lead-in, and the final stop. What is never
taken off is a doubt: "about 42", "not 42" and "42?" stay as they are, and stay wrong.
"""

import functools
import re
import unicodedata
from collections.abc import Callable

LONGEST_ANSWER = 400  # characters; nothing that is an answer is longer

# Words that make an answer less than an answer, wherever they stand.
HEDGES = frozenset(
    "or either maybe perhaps possibly probably presumably likely unlikely unsure uncertain unknown "
    "guess guessing guessed might depends depending alternatively otherwise wait hmm idk "
    "undetermined undecided doubt doubtful".split()
)
NEGATIONS = frozenset(
    "no not never nor neither none nope cannot without wrong incorrect false untrue mistaken isn't "
    "aren't wasn't weren't don't doesn't didn't won't wouldn't can't couldn't shouldn't hasn't "
    "haven't hadn't ain't isnt arent wasnt dont doesnt cant anything except unless".split()
)
# Words that change the number behind or before them.
OPERATORS = frozenset(
    "about approximately approx around roughly circa ca almost nearly close under below above "
    "beyond any between than least most half twice double triple plus minus times squared cubed "
    "root sqrt log ln sin cos tan exp abs multiple multiples reciprocal opposite inverse factorial "
    "modulo if".split()
)
REASON = re.compile(
    r"(?:because|since|as|given|for|due to|explanation|reason|reasoning|i\.?e\.?|that is|namely"
    r"|so that|this is because|which is because|it is because)\b[:,]?\s",
    re.IGNORECASE,
)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, contractions whole.

    >>> words_of("It isn't 42, Ann.")
    ['it', "isn't", 'ann']
    """
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())


# **Typography and mark-up.** After this step there is one spelling of everything: digits are
# ASCII, `\frac{3}{4}` is `3/4`, `10⁶` and `10^{6}` are `10^6`.


# A pear or a party hat adds nothing; these take the answer back.
EMOJI = set(map(chr, range(0x1F300, 0x1FB00))) - set("👎🤷🤔😕😬🙃😜😉🤪🤡🔄🚫🙅🤥🤨😅🤞🎲")
SAME_SIGN = str.maketrans(
    dict.fromkeys("−‐‑﹣", "-")
    | dict.fromkeys("’‘ʼ`´", "'")
    | dict.fromkeys("“”„«»", '"')
    | dict.fromkeys("⁄∕", "/")
    | dict.fromkeys(EMOJI)
    | dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad✅✓✔☑🎉\ufe0f")
    | {"。": ".", "º": "°", "∙": "·", "⋅": "·", "∗": "*", "✕": "×", "✖": "×"}
)
SUPERSCRIPTS = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
DOLLAR = "¤"
ELEMENT = r"\\(?:text|mathrm)\{([A-Z][a-z]?)\}"
ARGUMENT, FLAT = r"\s?(?:\{\s?(-?[\w.,]+)\s?\}|(\d))", r"\s?\{([^{}]+)\}"
# In this order, and until nothing changes: what stands inside comes out first.
LATEX = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d),\\! ?(?=\d{3})", ","),
        (r"<<[\d.,+*/()=% -]{1,80}>>", ""),  # the calculator of GSM8K
        (r"(?<=\d) – (?=\d)", " - "),
        (rf"{ELEMENT}(?=\s?[_\d])|(?<=[A-Za-z\d]){ELEMENT}", r"\1\2"),  # \text{H}_2\text{O}
        (r"<sup>([^<>]*)</sup>", r"^\1"),
        (r"</?(?:b|strong|i|em|u|code|p|span|sub|br|center|mark)\s?/?>", " "),
        (r"\\\(|\\\)|\\\[|\\\]|\\(?:left|right|displaystyle|bf|rm)(?![A-Za-z])|\\!", ""),
        (r"\\(?:[lL]arge|LARGE|[hH]uge|small|textstyle)(?![A-Za-z])", ""),
        (r"(?<=[A-Za-z])_\{(\w+)\}", r"_\1"),
        (r"(?<=\d)(?:\\[,:; ]|~)(?=\d{3})", " "),
        (r"\\[,:;]|\\ |\\q?quad(?![A-Za-z])|(?<=[\w}])~(?=[\w\\])", " "),
        (r"(?<=\d)\{,\}(?=\d)", ","),
        (r"\\([%#&_])", r"\1"),
        (r"\^\s?\{\s?\\(?:circ|degree)\s?\}|(?:\^\s?\\circ|\^?\\degree)(?![A-Za-z])", "°"),
        (r"\\times(?![A-Za-z])", "×"),
        (r"\\c?dot(?![A-Za-z])", "·"),
        (r"\\div(?![A-Za-z])", "÷"),
        (r"\\pi(?![A-Za-z])", "π"),
        (r"\\(?:approx|simeq)(?![A-Za-z])", "≈"),
        (r"\\(?:Rightarrow|rightarrow|implies|to)(?![A-Za-z])", "→"),
        (r"\\(?:overline|bar|dot)\{(\d+)\}", r"(\1)"),
        (r"\\(?:boxed|fbox|text|textbf|textit|textrm|emph|mathbf|mathrm|mathit|mathsf|mbox|textnormal|bm"
         r"|operatorname)\s?\{([^{}]*)\}", r" \1 "),
        (r"\^\s?\{\s?([-+]?\w+)\s?\}", r"^\1"),
        (rf"\\[dtc]?frac{ARGUMENT}{ARGUMENT}", r" \1\2/\3\4 "),
        (rf"\\[dtc]?frac{FLAT}{FLAT}", r" (\1)/(\2) "),
        (r"\{\s?(\d+)\s?\\over\s?(\d+)\s?\}", r" \1/\2 "),
    )
)  # fmt: skip
FORMULA = re.compile(r"\$\$?(?!\d[^$]*\$\d)([^$]*)\$\$?")  # "$12 and $30" are prices
EMPHASIS = re.compile(
    r"(?<![\w*])\*(?=\S)([^*\n]*)(?<=\S)\*(?![\w*])|(?<!\w)_(?=\S)([^_\n]*)(?<=\S)_(?!\w)"
)


@functools.lru_cache(maxsize=4096)  # the choices of a row are read for every completion
def plain_text(text: str) -> str:
    r"""The text in plain characters, without LaTeX, Markdown and HTML.

    >>> plain_text(r"$\boxed{3\frac{1}{2}}$"), plain_text("**１０⁶** €"), plain_text("−½")
    ('3 1/2', '10^6 €', '- 1/2')
    """
    text = text.replace(r"\$", DOLLAR)  # a price; a bare $ may open a formula
    text = re.sub("(?<=[0-9])(?=[₀-₉])", "_", text)
    text = SUPERSCRIPTS.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]), text)
    text = text.replace("−", "-").replace("′", "'")
    text = re.sub("[¼-¾⅐-⅞↉]", lambda m: f" {unicodedata.normalize('NFKC', m[0])} ", text)
    text = unicodedata.normalize("NFKC", re.sub("[`]{3}[a-z]*\n|[`]", "", text))
    text = text.translate(SAME_SIGN)
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    text = re.sub(r"(?<=\d)\s?\*\*\s?(?=[-\d(])", "^", text).replace("**", "").replace("__", "")
    for _ in range(8):  # as deep as mark-up is ever nested
        before = text
        for pattern, replacement in LATEX:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    text = EMPHASIS.sub(r"\1\2", FORMULA.sub(r"\1", text)).replace(DOLLAR, "$")
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text))
    return text.replace(" ^", "^").strip()


# **Lead-ins**: a label ("Final answer:"), a connective ("So,"), and a sentence whose verb hands
# the answer over ("The capital of France is", "She has"). A sentence with a doubt in it, a
# negation, or a word that changes the number ("half of it is") is no lead-in.


LABEL = re.compile(
    r"(?:#+ ?|[•→⇒∴=]>? ?|[-=]+> ?|\\therefore )?"
    r"(?:(?:the|my|our|your|final|correct|right|short|best|numerical|sorted|selected) ){0,4}"
    r"(?:(?:answer|ans|result|total|sum|solution|conclusion|output|value|response|choice|option"
    r"|verdict|difference|product|quotient|sorted|order|list|sequence|words?) ?"
    r"(?:[:=→—–]|->|=>)+\s*"
    r"|correct: ?(?=[(\[]?[A-H][)\]]?(?:\W|$))"
    r"|(?:answer|ans)\s(?=[-+$]?\d|[(\[]?[A-Za-z][)\]]?(?:\W|$)|yes\b|no\b|true\b|false\b))",
    re.IGNORECASE,
)
ARROW = re.compile(r"(?:#+|[•→⇒∴:]|[-=]+>|=|\\therefore|\*|-(?= [^\W\d_]))\s?(?=\S)")
CONNECTIVE = re.compile(
    r"(?:and so|so|thus|therefore|hence|then|finally|overall|altogether|as a result|consequently"
    r"|in (?:conclusion|total|short|summary|all|the end)|to (?:conclude|sum up)"
    r"|(?:i|we) (?:think|believe|say|choose|pick|select|chose|get|got|have|find|would say"
    r"|would choose|would pick|would go with|go with)(?: that)?"
    r"|i'd (?:say|choose|pick|go with)|(?:choose|pick|select)|(?:it|that|there|this|he|she)'s"
    r"|exactly|only|just|equals|a total of|(?:in )?the year(?= \d)"
    r"|in(?= \d{4}$)|by(?= (?-i:[A-Z]))|at)\b ?[,:]?\s+(?=\S)",
    re.IGNORECASE,
)
SUBJECT = r"(?P<subject>(?:[\"']?[^\W_](?:[\w'-]|\.(?=\d))*[\"']?,?\s){1,14}?)"
HANDED_OVER = (
    r"\b(?:\s(?:also|now|exactly|equal to|a total of|only|just|therefore|thus|then|still|simply"
    r"|indeed|clearly|called|known as|at(?= \()|left with|option|choice|answer))*\s?[:,]?\s?"
    r"(?=[^\s=])"
)
SENTENCE = re.compile(
    rf"{SUBJECT}(?:is|are|was|were|(?:would|must|should|will) be|equals?"
    r"|(?:comes|amounts|adds up|add up|simplifies|reduces|evaluates) to|factors as"
    rf"|has (?:an? )?(?:length|value|area|volume)(?: of)?){HANDED_OVER}",
    re.IGNORECASE,
)
# "The square of the answer is 42", "The worst choice is A": about something else.
OTHER_SUBJECT = re.compile(
    r"\b(?:(?<!value )of|but|than|besides|except) (?:the|my|our) (?:\w+ )?"
    r"(?:answer|choice|option)\b"
    r"|\b(?:bad|worst|worse|poor|fake|decoy|trap|other|second|next|old|previous|initial|first"
    r"|opposite|alternative|rejected) (?:answer|choice|option)\b"
    r"|\b(?:avoid|whichever|whatever|reject|ignore|skip|exclude|eliminate)\b"
    r"|\b(?:every|any)thing but\b",
    re.IGNORECASE,
)
VERDICT = re.compile(
    r"\s(?:is|would be|must be|should be)\s(?:(?:the|my|our)\s)?"
    r"(?:(?:final|correct|right|best|only)\s?){0,2}(?:answer|choice|option|result|one)?$",
    re.IGNORECASE,
)
BRACKETS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'"}


def is_wrapped(text: str) -> bool:
    """Does the bracket or quote at the start close at the very end, around more than a list?

    >>> is_wrapped("((B) iron)"), is_wrapped("(a) or (b)"), is_wrapped("(1, 2)")
    (True, False, False)
    """
    inner, close = text[1:-1], BRACKETS.get(text[:1])
    if not inner or not text.endswith(close or "\0") or re.search(r",(?!\d{3}\b)", inner):
        return False
    if close == text[0]:
        return close not in inner
    depth = 0
    for sign in inner:
        depth += (sign == text[0]) - (sign == close)
        if depth < 0:
            return False
    return depth == 0


def unwrap(text: str) -> str:
    """Without the brackets, quotes and final stop around the whole text; a tuple keeps its own.

    >>> unwrap('("42.")'), unwrap("(a) or (b)"), unwrap("42?"), unwrap("3.1...")
    ('42', '(a) or (b)', '42?', '3.1...')
    """
    before = None
    while text != before:
        before = text
        text = text.strip()
        if not text.endswith(".."):
            text = text.rstrip(".!,;:").strip() or text
        if is_wrapped(text):
            text = text[1:-1]
    return text


ANSWER_LABEL = re.compile(r"\banswer\b", re.IGNORECASE)
ANSWER_LAST = re.compile(  # behind the work, in a line or a sentence of its own
    r".{6,}(?:[.!?]|\n)\s*((?:so|therefore|thus)?,? ?(?:the )?(?:final |correct )?"
    r"answer(?: is|:) ?[^\n]{1,80})",
    re.IGNORECASE | re.DOTALL,
)


def undress(answer: str, clean: Callable[[str], str] = plain_text) -> str:
    """Without mark-up, label, connective and final stop; the sentence, if any, stays.

    >>> undress("**Final answer:** So, the answer is 42.")
    'the answer is 42'
    """
    text, before = clean(answer[:LONGEST_ANSWER]), None
    text = unwrap(text if len(text) <= 2 * LONGEST_ANSWER else "")  # one sign may stand for many
    if len(ANSWER_LABEL.findall(text)) == 1 and (told := ANSWER_LAST.fullmatch(text)):
        text = told[1]
    text = re.sub(r"^(?:since|because) [^,\n]{3,80}, (?=\S)", "", text, flags=re.IGNORECASE)
    while text != before:
        before = text
        for opening in (LABEL, CONNECTIVE, ARROW):
            if match := opening.match(text):
                text = unwrap(text[match.end() :])
    return text


def after_lead_in(text: str, question: str = "") -> str:
    """What the verb of a sentence hands over; the text itself if it is no such sentence.

    >>> after_lead_in("the capital of France is Paris"), after_lead_in("half of it is 42")
    ('Paris', 'half of it is 42')
    """
    doubts = HEDGES | NEGATIONS | OPERATORS | {"less", "more", "fewer", "next", "before", "after"}
    doubts -= set(words_of(question)) - HEDGES - NEGATIONS
    doubts -= {"root"} if re.search("sqrt|√", question) else set()
    if match := SENTENCE.match(text):
        subject, known = match["subject"], set(re.findall(r"\d+", question))
        other_number = set(re.findall(r"\d+", subject)) - known
        if not (doubts & set(words_of(subject)) or OTHER_SUBJECT.search(subject) or other_number):
            return unwrap(text[match.end() :])
    return text


# **A sentence beside its question**: "William Shakespeare wrote Hamlet." says two words that "Who
# wrote Hamlet?" does not. They are what it claims, if they stand together and nothing denies them.


JOINING = frozenset(
    "the a an of is are was were be been being by in on at to it its this that these those as for "
    "than with and he she they has have had do does did called named known answer result which who "
    "whom".split()
)
TELLING = frozenset("lies lives located situated held took means makes make gives says".split())
ORDERED = frozenset("than before after above below ahead behind".split())
SPOKEN = re.compile(r"[^\W_]+(?:'[^\W\d_]+)?")  # words and numbers
SAID_WORD = re.compile(r"[^\s,;:()\"]+")


def without_passage(question: str) -> str:
    """A question without what it quotes at length, which is no part of what it asks.

    >>> without_passage("Who? 'It was Ann who came in, after all the others had left.'")
    'Who? '
    """
    return re.sub(r"(?<!\w)(['\"])[^'\"]{40,}\1", "", question)


def stem_of(word: str) -> str:
    """A word without the ending of a plural, a verb or an owner: "makes", "cell's"."""
    return re.sub(r"(?<=\w{3})(?:'s|s)$", "", word)


def beside_question(text: str, question: str) -> str:
    """The one run of words that a sentence adds to its question; empty if there is no such run.

    >>> beside_question("Shakespeare wrote Hamlet.", "Who wrote Hamlet?")
    'Shakespeare'
    >>> beside_question("Shakespeare wrote Macbeth", "Who wrote Hamlet?")
    ''
    >>> beside_question("Ann is taller than Bob", "Who is taller, Ann or Bob?")
    'Ann'
    """
    asked = SPOKEN.findall(question.lower())
    if (HEDGES | NEGATIONS | {"but", "actually"}) & set(words_of(text)) - set(asked) or "?" in text:
        return ""
    tokens = list(SAID_WORD.finditer(text))
    words = [token[0].lower().strip(".!'%$") for token in tokens]
    stems = {stem_of(w) for w in asked if w not in JOINING}
    kinds = [w in JOINING or w in TELLING or (stem_of(w) in stems and "asked") for w in words]
    for i, word in enumerate(words[:-1]):
        passive = {"is", "are", "was", "were"} & {*words[:i]} or word.endswith(("ed", "en", "n"))
        if words[i + 1] == "by" and passive:
            kinds[i] = "asked"  # "was written by"
        told = kinds[i - 1 : i] == ["asked"] and {"is", "are", "was", "were"} & set(words[:i])
        if told and not kinds[i] and words[i + 1] in ("of", "in"):
            kinds[i] = "asked"  # "is the capital city of Japan"
    if "," in text and True not in kinds:
        return ""  # a list
    if "asked" not in kinds or len(kinds) - kinds.count(False) < 2:
        return ""
    new = [i for i, kind in enumerate(kinds) if kind is False]
    if not new:  # one that the question has named: "Ann is taller"
        if passive := re.search(r"\b(?:is|are|was|were) \w+ by (?:the )?([^,;]+)$", text):
            return passive[1]
        verb = re.search(r"\b(?:who|what|which(?: \w+)?) (\w+)", question.lower())
        match = re.fullmatch(
            r"((?:[^\s,;]+ ){1,3}?)(?:is|are|was|were|has|have|had|does|did|can|cannot|could"
            rf"|{verb[1] if verb else 'is'})\b(.*)", text,
        )  # fmt: skip
        rest, order = words_of(match[2]) if match else [], iter(asked)
        order = order if {*ORDERED, "is", "are", "and"} & {*rest} else asked
        told = verb and all(word in order for word in rest if word not in JOINING)
        named = match and not set(words_of(match[1])) <= JOINING
        denied = [bool(NEGATIONS & set(words_of(t))) for t in (text, question)]
        agrees = denied[0] == denied[1]  # "can fly", of what cannot
        return match[1].strip() if named and told and agrees and not set(",;") & set(text) else ""
    inside = slice(new[0], new[-1] + 1)
    if words[: new[0]][-1:] in (["before"], ["after"], ["than"]):
        return ""  # the day after Sunday
    if "asked" in kinds[inside] or {"is", "are", "was", "were"} & set(words[inside]):
        return ""
    return text[tokens[new[0]].start() : tokens[new[-1]].end()].rstrip(".!")


CONCLUSION = re.compile(
    r"(?:.{4,}[^\W_)]\)? ?[,.;:—–]* (?:and )?(?:so|therefore|thus|hence|which means|which gives"
    r"|which is(?= (?:option|choice|answer|letter)\b))(?: that)?[ ,:]+"
    r"|.*\d.*\d ?[→⇒] ?|(?!.*\b(?:or|either|maybe|perhaps)\b)"
    r".{6,}(?:[.;\n] ?total: ?|[^\W_)]\)?,? (?:making|giving|totall?ing) (?=[$€£]?\d)))"
    r"(?P<last>(?!that\b).+)",
    re.IGNORECASE | re.DOTALL,
)


def conclusion(text: str) -> str:
    """What stands behind the last "so" of a derivation; else the text itself.

    >>> conclusion("17 = 5 × 3 + 2, so the remainder is 2"), conclusion("42, so it is 42")
    ('the remainder is 2', '42, so it is 42')
    """
    match = CONCLUSION.fullmatch(text)
    return unwrap(match["last"]) if match else text


def strip_dressing(answer: str, clean: Callable[[str], str] = plain_text) -> str:
    r"""The answer alone: without mark-up, lead-in, verdict ("... is correct") and final stop.

    >>> strip_dressing("The answer is **42**."), strip_dressing(r"$\boxed{42}$")
    ('42', '42')
    >>> strip_dressing("It is 42 pears."), strip_dressing("It is not 42.")
    ('42 pears', 'not 42')
    """
    text = undress(answer, clean)
    shorter = VERDICT.sub("", text)
    return after_lead_in(shorter if shorter.lower() not in ("it", "this", "that") else text)
