"""Multiple choice: which option an answer chooses.

The rule: an answer chooses an option when it does so without ambiguity, and nothing that a policy could add or repeat
may make it count for two options. So a lead, a reason or an explanation around a choice is accepted, and a second
claim, a retraction or a denial invalidates it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from motet.rewards.text.answer_parsing import normalise, unwrap

Options = Sequence[str] | None

_ASCII = {0xFF01 + n: 0x21 + n for n in range(94)} | {0x3000: " "}
_ASCII |= {ord(mark): f"{plain} " for mark, plain in zip("，。：；！？、", ",.:;!?,", strict=True)}
_ASCII |= {ord("’"): "'", ord("*"): None, ord("`"): None}
"""Full-width letters and marks as plain ones, and no markup."""
_NOUN = (
    r"(?:(?:my|the) )?(?:(?:final|correct|right|best) )*"
    r"(?:(?:answer|ans|option|choice|letter|solution)\b\.?|(?<=t )one\b)"
    r"(?: (?:choice|option|letter)\b)?(?: to (?:the|this) question)?"
)
_CLAIM_LEAD = (
    rf"(?:{_NOUN}(?:\s*[:=]| (?:is|would be|must be|should be)\b\s*:?)\s*"
    r"|(?:(?:正确|最终|最后)?的?(?:答案|选项)(?:应该|应)?[是为选]?|(?:应该|应|故|我)?选择?)\s*:?\s*(?=[(\[]?[A-Za-z]))"
)
_SO = r"(?:(?:so|thus|therefore|hence)\b[, ]*|(?:所以|因此|故|综上所述?)[, ]*)"
_LEAD = re.compile(
    rf"{_SO}?(?:{_CLAIM_LEAD}|{_NOUN}\s*"
    r"|(?:i(?:'d| would| will|'ll)? (?:choose|pick|select|think|believe|go with|say)(?: that)?|choose|pick|select"
    r"|it is|it's|(?:it|that) (?:must|should|would) be)[:, ]+)"
    rf"|{_SO}(?=[(\[]?[A-Z](?![A-Za-z0-9']))",
    re.IGNORECASE,
)
_LOOKING = re.compile(
    r"(?:based on|looking at|from|in) (?:the|this) (?:image|picture|photo|figure|diagram|table|chart|graph|text|passage"
    r"|question)(?: (?:above|below|shown|provided|given))?, ",
    re.IGNORECASE,
)
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?(?![A-Za-z0-9'])")
_BREAK = re.compile(r"(?:[\s.:,;)\]–—]|-(?![0-9]))*")  # but the sign of a number
_REASON = re.compile(
    r"(?:^|(?<=[\s.,;:(–—-]))(?:because|since|as(?! well)|due to|(?:and |but )?not|rather than|instead of)\b|, which\b",
    re.IGNORECASE,
)
_RIGHT = re.compile(
    r"\s+is\s+(?:the\s+)?(?:correct|right|best)?(?:\s*(?:answer|option|choice))?\s*[.!]*$", re.IGNORECASE
)
_CHOOSE = (
    r"\b(?<!not )(?<!n't )(?<!never )(?<!cannot )"
    r"(?:choos(?:e|ing)|pick(?:ing)?|select(?:ing)?|(?:go|going) (?:with|for)|opt for|settle on|(?:it|that) must be"
    r"|i(?:'d| would| will|'ll)? (?:take|prefer|say)) "
)
_CLAIMS = (
    re.compile(r"\b(?i:answer|choice)\s*(?:is|:|=|would be)\s*(?:option\s*)?[(\[]?([A-Z])\b"),
    re.compile(r"\b([A-Z])[)\]]?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b"),
    re.compile(
        r"\b(?i:it|truth|one|that)(?:'s| is| was| should be| must be)\s+(?i:really |actually )?([A-Z])(?![\w']| [a-z])"
    ),
    re.compile(r"\b(?i:but)(?: (?i:also|rather))? [(\[]?([A-Z])\b(?!')"),
    re.compile(rf"{_CHOOSE}(?:the )?(?:option )?[(\[]?(?!a [a-z])([A-Z])(?![\w'])", re.IGNORECASE),
    re.compile(
        r"\b(?i:so|thus|therefore|hence),? (?i:option )?[(\[]?(?!I )([A-Z])(?![\w']"
        r"| (?:and|or|is|isn't|was|are|does|do|can|cannot|can't|has|shows|would|could)\b)"
    ),
)
_WORDED_CLAIMS = (
    re.compile(r"\b(?:answer|choice) (?:is|would be) ([^.,;!?\n]+)", re.IGNORECASE),
    # only from the start of a clause: otherwise the time is quadratic in its length
    re.compile(r"(?:^|(?<=[.,;!?\n]))([^.,;!?\n]+) is (?:the )?(?:correct|right|best)\b", re.IGNORECASE),
    re.compile(rf"{_CHOOSE}([^.,;!?\n]+)", re.IGNORECASE),
)
_MENTION = re.compile(
    r"(?<![A-Za-z0-9'])(?!(?<!tion )(?<!oice )(?:A|I) (?!(?:is|was|and|or|has|shows|would|could|should|might|may|does"
    r"|isn't|can|can't|cannot|seems|looks|fits)\b)[a-z])([A-Z])(?![A-Za-z0-9'])"
)
_RETRACTION = re.compile(
    r"\b(?:wait|actually|hmm+|second thought|sorry|correction|alternatively|or (?:maybe|perhaps|else)|maybe|perhaps"
    r"|(?:not|un)\s?sure|(?:do not|don't) know|chang\w+ my mind|scratch that|kidding|guess(?:ing)?|not only"
    r"|(?:not|can't|cannot) (?:be )?(?:ruled? out|excluded?)"
    r"|not (?:really )?(?:wrong|incorrect|false|right|correct|true|it)"
    r"|not the (?:right |correct |best )?(?:answer|one|choice)"
    r"|(?:this|that|it|which|above|mine|answer|choice)(?:'s| is| was)(?: \w+)? (?:wrong|incorrect|false|mistaken)"
    r"|neither is|neither of|also (?:correct|right|possible|fits?)|as well|equally|likewise|a(?:ny|ll) of them|opposite"
    r"|but then|lie|lying)\b|^(?:no|not|nope|is|was|isn't)\b|\?|^[错不否]|或|也许|可能|不对|错了",
    re.IGNORECASE,
)
"""Phrases that retract or doubt a choice."""
_HEDGE = re.compile(
    r"\b(?:if|unless|whether|suppose|assum\w+|would|could|might|may|claim\w*|sa(?:y|ys|id)|told|think\w*|believ\w+"
    r"|argu\w+|false that|true that|the case)\b|如果|若|认为",
    re.IGNORECASE,
)
"""Phrases that make a conclusion conditional or attribute it to others."""
_DENIAL = re.compile(
    r"\b(?:wrong|incorrect|false|cannot|not|no|nor|neither|unlike|rather than|instead of|rule[sd]? out|exclude[sd]?)\b"
    r"|n't\b|[不非错没]",
    re.IGNORECASE,
)
_LIST = re.compile(
    r"\b[A-Z](?:(?:, (?:and |or )?| and | or )[A-Z]){1,8}(?= (?:are|were|do|aren't|don't|can|cannot|can't)\b| ?[都均])"
)
"""Lists of letters with a verb: `A, C and D are`."""
_CLAUSE_END = re.compile(
    r"[,;–—]| [-/]+ |(?<=[a-z]{2}):|\b(?:so|and|therefore|thus|hence|then|while|whereas)\b|所以|因此|故", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_CONCLUSION = re.compile(
    rf"(?:^|(?<=[.!?] )|(?<=\n)|(?:(?<=, )|(?<=; )|(?<=, and ))(?={_SO}))(?={_SO}?{_CLAIM_LEAD})", re.IGNORECASE
)


def letter_of(gold: str, options: Options) -> str | None:
    """The letter that a gold answer means: a letter, an option's text, or both (`B. cat`); None for any other."""
    return _strict(gold.translate(_ASCII).strip(), options)


def chosen_letter(answer: str, options: Options) -> str | None:
    """The letter of the one option that an answer chooses, None for no or several options.

    Accepted: a letter (`B`, `b.`, `(B)`, full-width too), an option's text, both (`B. cat`), each after a lead (`the
    answer is`, `Ans:`, `答案：`), before a reason (`because A is wrong`) or an explanation in further sentences, or as
    the conclusion of the text before it (`..., so the answer is B`). None for anything else.
    """
    lines = [" ".join(line.lstrip(" #>").split()) for line in answer.translate(_ASCII).splitlines()]
    text = "\n".join(line for line in lines if line)
    letter, first = _alone(" ".join(text.split()), options), text.partition("\n")[0]
    if letter and len(unwrap(first)) == 1 and letter != _strict(first, options):  # `A`, then `dog`: no article
        return None
    return letter or _explained(text, options) or _concluded(text, options)


def _alone(text: str, options: Options) -> str | None:
    """The choice of a text that consists of one, with leads and a reason."""
    bare = text
    while (match := _LOOKING.match(bare) or _LEAD.match(bare)) and match.end():
        bare = bare[match.end() :]
    for candidate in (text, bare):
        letter = _strict(candidate, options)
        if letter is not None:
            return letter
    reason = _REASON.search(bare)
    if reason is None:
        return None
    letter, rest = _strict(bare[: reason.start()].rstrip(" .,;:(–—-"), options), bare[reason.start() :]
    if letter is None or _RETRACTION.search(f" {rest}") or _denies(rest, letter, options):
        return None
    return letter if _claims(rest, options) <= {letter} else None


def _explained(text: str, options: Options) -> str | None:
    """A choice, then sentences that explain it: `The answer is B. Here is why ...`, or `B` on a line of its own."""
    for end in _SENTENCE_END.finditer(text, 0, _longest(options)):
        head, rest = text[: end.start()], text[end.end() :]
        letter = _alone(" ".join(head.split()), options)
        if letter is None or (len(unwrap(head)) == 1 and "\n" not in end[0]):  # `B. Smith`
            continue
        return letter if rest and _supports(rest, letter, options) else None
    return None


def _supports(rest: str, letter: str, options: Options) -> bool:
    """Whether the sentences after a choice support it: none retracts it, chooses or favours another option."""
    if rest[0].islower() or (rest.isascii() and len(rest.split()) < 3) or not _leaves(rest, letter, options):
        return False
    letters, normal = _letters(options), [normalise(option) for option in options or ()]
    for sentence in _SENTENCE_END.split(rest):
        statement = _affirmed(sentence)
        if {m for m in _MENTION.findall(statement) if m in letters} - {letter}:
            return False
        words = f" {normalise(re.sub(r'[^A-Za-z0-9]+', ' ', statement))} "
        named = {letters[n] for n, option in enumerate(normal) if option and f" {option} " in words}
        if named and letter not in named:
            return False
    return True


def _affirmed(sentence: str) -> str:
    """A sentence without its negated clauses, whose options are not favoured."""
    if re.search(r"\bbut\b|\bonly\b", sentence) or not _DENIAL.search(sentence):
        return sentence
    joined = _LIST.sub(lambda found: re.sub(r",? (?:and |or )?", " ", found[0]), sentence)
    return ", ".join(clause.strip() for clause in _CLAUSE_END.split(joined) if not _DENIAL.search(clause))


def _concluded(text: str, options: Options) -> str | None:
    """A choice that ends a text, as a sentence or after `so`: `It barks, so the answer is B.`"""
    for start in _CONCLUSION.finditer(text):
        before, tail = text[: start.start()], text[start.start() :]
        letter = _alone(" ".join(tail.split()), options) if len(tail) < _longest(options) else None
        if letter is None or "?" in tail:
            continue
        own_sentence = _SENTENCE_END.split(before)[-1]
        sound = _leaves(before, letter, options) and not _HEDGE.search(own_sentence)
        return letter if sound and not _HEDGE.search(tail) else None
    return None


def _leaves(text: str, letter: str, options: Options) -> bool:
    """Whether a text does not contradict a choice: no retraction, denial, or claim of another option."""
    sentences = _SENTENCE_END.split(text)
    if any(_RETRACTION.search(sentence) for sentence in sentences) or _denies(text, letter, options):
        return False
    chosen = {_alone(sentence, options) for sentence in sentences} - {None}
    return _claims(text, options) | chosen <= {letter}


def _claims(text: str, options: Options) -> set[str | None]:
    """The options that a text claims to be the answer."""
    worded = {_strict(claim, options) for pattern in _WORDED_CLAIMS for claim in pattern.findall(text)} - {None}
    return worded | {claim.upper() for pattern in _CLAIMS for claim in pattern.findall(text)}


def _denies(text: str, letter: str, options: Options) -> bool:
    """Whether a text denies a letter, or its option's text: `not B`, `no dog`."""
    named = re.escape(options[ascii_uppercase.index(letter)].strip()) if options else ""
    if named and re.search(rf"\b(?:not|no|never)(?: (?:a|an|the|any))? {named}(?!\w)", text, re.IGNORECASE):
        return True
    return bool(
        re.search(
            rf"\b(?:not|cannot|\w+n't|never|except|instead of|rather than|unlike)(?: (?:choose|pick|select|go with))?"
            rf"(?: option)? [(\[]?{letter}\b"
            rf"|(?<![A-Za-z0-9']){letter}[)\]]?(?: (?:is|was|seems|looks)(?: \w+)? (?:wrong|incorrect|false|not)\b"
            rf"|(?: is|\s?was)n't\b)|[不非]是? ?选?{letter}(?![A-Za-z])",
            text,
        )
    )


def _longest(options: Options) -> int:
    """Maximum length of a choice with its lead, in characters."""
    return 200 + max((len(option) for option in options or ()), default=0)


def _letters(options: Options) -> str:
    return ascii_uppercase if options is None else ascii_uppercase[: len(options)]


def _strict(text: str, options: Options) -> str | None:
    """A letter, an option's text, both, or one of them `is correct`."""
    letters = _letters(options)
    texts = [normalise(option.translate(_ASCII)) for option in options or ()]
    bare = _RIGHT.sub("", text)
    for candidate in (text, bare):
        alone, normal = unwrap(candidate).upper(), normalise(candidate)
        if len(alone) == 1 and alone in letters:
            return alone
        same = [letter for letter, option in zip(letters, texts, strict=False) if option == normal]
        if same and normal:
            return same[0] if len(same) == 1 else None
    match = _LETTER.match(bare)
    if match is None or match[1].upper() not in letters:
        return None
    letter = match[1].upper()
    rest = _BREAK.sub("", bare[match.end() :], count=1)
    if not rest or (options is not None and normalise(rest) == texts[letters.index(letter)]):
        return letter
    return None
