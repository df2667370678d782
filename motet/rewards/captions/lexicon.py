"""The closed classes of words that captions are built from, singular forms, and a small table of synonyms.

Open classes (nouns, adjectives before a noun) need no list. The vocabulary is that of everyday photographs (COCO) and
of the shapes world; a word that is missing here is a noun.
"""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


DETERMINERS = frozenset(
    _words("a an the this these those some any his her its their my our your each every another other")
)
FILLERS = frozenset(
    _words(
        "very really just also both together up down out away off there here it please quite so too still being been "
        "shows showing depicts depicting features featuring half"
    )
)
IMPERATIVES = frozenset(_words("draw paint show"))
"""Fillers at the very start of a prompt (`please draw`); elsewhere they mean something (`a tube of paint`)."""
BE = frozenset(_words("is are was were be am has have having had"))
CLAUSES = frozenset(_words("that which who while as where whose when"))

_UNITS = _words("zero one two three four five six seven eight nine ten eleven twelve")
NUMBERS = {word: n for n, word in enumerate(_UNITS)} | {str(n): n for n in range(100)} | {"pair": 2, "couple": 2}

PHRASES: dict[tuple[str, ...], str] = {
    tuple(spelling.split()): meaning
    for meaning, spellings in {
        "": "a picture of|an image of|a photo of|a photograph of|a drawing of|a painting of|a close up of|close up of|"
        "a view of|a closeup of|picture of|image of|photo of|drawing of|the picture shows|the image shows|"
        "a group of|group of|a bunch of|bunch of|a lot of|lots of|a set of|a number of|a variety of|a herd of|"
        "a flock of|herd of|flock of|a crowd of|crowd of",
        "two": "a pair of|a couple of|pair of|couple of",
        "left of": "to the left of|on the left of|on the left side of|at the left of|left of",
        "right of": "to the right of|on the right of|on the right side of|at the right of|right of",
        "in front of": "in front of|ahead of",
        "next to": "next to|close to|adjacent to|right next to|by the side of|at the side of",
        "on": "on top of|on the top of|upon|onto",
        "in": "inside of|in the middle of|in the center of|in the centre of",
    }.items()
    for spelling in spellings.split("|")
}
RELATIONS = frozenset(
    _words(
        "on in at with of to from by near beside alongside under underneath beneath below above over behind between "
        "among through across along against around for inside outside into towards toward past onto upon without like "
        "during atop"
    )
) | {meaning for meaning in PHRASES.values() if meaning not in ("", "two")}
SAME_RELATION = {
    "by": "next to", "near": "next to", "beside": "next to", "alongside": "next to", "over": "above", "inside": "in",
    "into": "in", "under": "below", "underneath": "below", "beneath": "below", "onto": "on", "upon": "on",
    "atop": "on",
    "toward": "towards",
}  # fmt: skip
CONVERSE = {"right of": "left of", "below": "above", "behind": "in front of"}
"""`a CONVERSE b` says the same as `b VALUE a`."""

ADJECTIVES = frozenset(
    _words(
        "red orange yellow green blue purple violet pink brown black white gray grey golden silver dark light bright "
        "colorful colourful big large huge small little tiny tall short long old young new wet dry hot cold empty full "
        "open closed clean dirty wooden metal plastic round square striped happy sad beautiful cute furry fluffy busy "
        "sunny cloudy snowy grassy sandy rocky different many several few multiple various male female "
        "ancient antique vintage modern traditional medieval rustic wild giant massive enormous narrow wide thick thin "
        "heavy soft smooth shiny rusty broken fresh ripe elderly adult pretty elegant lone single "
        "african american arabic asian australian brazilian british canadian chinese danish dutch egyptian english "
        "european finnish french german greek hungarian indian indonesian irish israeli italian japanese korean "
        "mexican norwegian persian polish portuguese roman russian scottish spanish swedish swiss thai turkish "
        "ukrainian vietnamese welsh"
    )
)
AFTER_NOUNS = frozenset(_words("full empty open closed asleep"))
"""Adjectives that may follow their noun: `a bucket full of paint`."""

SYNONYMS = {
    "guy": "man", "gentleman": "man", "male": "man", "lady": "woman", "female": "woman", "kid": "child",
    "toddler": "child", "bike": "bicycle", "motorbike": "motorcycle", "automobile": "car", "plane": "airplane",
    "aeroplane": "airplane", "aircraft": "airplane", "jet": "airplane", "couch": "sofa", "tv": "television",
    "laptop": "computer", "cellphone": "phone", "telephone": "phone", "puppy": "dog", "doggy": "dog", "kitten": "cat",
    "kitty": "cat", "fridge": "refrigerator", "gray": "grey", "large": "big", "huge": "big", "little": "small",
    "tiny": "small", "road": "street", "photo": "picture", "image": "picture",
    "doughnut": "donut", "colorful": "colourful", "sidewalk": "pavement", "ocean": "sea", "tee": "shirt",
    "lawn": "grass", "mug": "cup", "beverage": "drink", "meal": "food", "purse": "bag", "violet": "purple",
    "disc": "circle", "disk": "circle", "multiple": "several", "many": "several", "stove": "oven", "rock": "stone",
    "gaze": "look", "stare": "look", "grasp": "hold", "carry": "hold", "hop": "jump", "leap": "jump",
}  # fmt: skip
"""Word -> the word that stands for all of its kind, after singular forms. Deliberately short: only near-equals."""

_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "persons": "person", "feet": "foot",
    "teeth": "tooth", "mice": "mouse", "geese": "goose", "oxen": "ox", "knives": "knife", "wives": "wife",
    "leaves": "leaf", "wolves": "wolf", "shelves": "shelf", "loaves": "loaf", "calves": "calf", "halves": "half",
    "scarves": "scarf", "buses": "bus", "gases": "gas", "lenses": "lens", "crosses": "cross", "dice": "die",
    "policemen": "policeman", "firemen": "fireman", "snowmen": "snowman", "businessmen": "businessman",
    "movies": "movie", "cookies": "cookie", "ties": "tie", "pies": "pie", "brownies": "brownie", "selfies": "selfie",
    "shoes": "shoe", "toes": "toe", "canoes": "canoe", "axes": "axe", "cacti": "cactus",
}  # fmt: skip
_ONE_FORM = frozenset(_words("sheep deer fish scissors pants jeans shorts series aircraft"))
_NEVER_PLURAL = frozenset(_words("bus gas lens canvas christmas atlas always this is his its as has was"))

_VERBS = _words(
    "sit stand lie lay walk run jump ride play eat drink hold carry wear look watch sleep rest fly swim surf ski skate "
    "drive hang lean cook throw catch hit swing kick read write talk smile pose pull push climb cross graze "
    "follow chase travel sail float fill surround decorate attach tie put make use prepare serve pet feed hug kiss "
    "touch reach gaze stare grasp hop leap skateboard snowboard perform wait move pass land shine lick chew bite "
    "sniff roll let help allow enable ask teach hear see listen speak sing dance kneel crouch bring give take keep "
    "lift pour stir wash wipe dig draw paint flip laugh cry"
)
CAUSATIVES = frozenset(_words("let make help allow enable ask teach watch see hear"))
"""Verbs whose object does something: `lets the doctor hear`."""
COMPOUNDS = {
    verb: frozenset(_words(nouns))
    for verb, nouns in {
        "sailing": "ship boat vessel", "swimming": "pool", "dining": "room table", "living": "room",
        "washing": "machine", "sewing": "machine", "cutting": "board", "ironing": "board", "sleeping": "bag",
        "rocking": "chair", "running": "shoe track", "walking": "stick", "frying": "pan", "fishing": "boat rod net",
        "hiking": "boot trail", "riding": "boot crop", "skating": "rink", "baking": "sheet", "boxing": "glove",
        "cooking": "pot", "driving": "range", "flying": "saucer", "shopping": "cart bag",
        "drinking": "fountain glass straw", "serving": "tray dish", "reading": "lamp", "writing": "desk",
        "climbing": "wall frame", "jumping": "rope", "racing": "car bike", "hanging": "basket lamp",
        "standing": "lamp",
    }.items()
}  # fmt: skip
"""A participle and the noun that it names with: `an old Chinese sailing ship` does not sail just now."""
_AS_PARTICIPLES = _words(
    "park cover top stack line pack display mount place set cut brush face work show open close build"
)
"""Verbs whose other forms are nouns more often (`skate parks`, `clock faces`)."""
_NOUNS = frozenset(_words("building buildings parking crossing setting"))
NOUN_OR_VERB = frozenset(_words("painting drawing"))
"""Verbs only with an object that a determiner begins: `a woman painting a wall`, but `a wall painting`."""
_DOUBLED = frozenset(_words("sit run swim cut set put hit hug pet hop top let dig"))
_PAST = {
    "sat": "sit", "stood": "stand", "lain": "lie", "laid": "lay", "ran": "run", "ridden": "ride", "eaten": "eat",
    "held": "hold", "worn": "wear", "flown": "fly", "driven": "drive", "hung": "hang", "thrown": "throw",
    "caught": "catch", "made": "make", "fed": "feed", "lit": "light", "built": "build", "written": "write",
    "lying": "lie", "tying": "tie", "drawn": "draw", "taken": "take", "given": "give", "seen": "see", "heard": "hear",
}  # fmt: skip


def _participles() -> dict[str, str]:
    found = dict(_PAST)
    for verb in (*_VERBS, *_AS_PARTICIPLES):
        doubled = verb + verb[-1] if verb in _DOUBLED else verb
        stem = verb[:-1] if verb.endswith("e") and verb not in ("ski", "tie", "lie") else doubled
        found[f"{stem}ing"] = verb
        found[f"{verb[:-1]}ied" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{stem}ed"] = verb
    return {form: verb for form, verb in found.items() if form not in _NOUNS}


def _finite() -> dict[str, str]:
    found = {}
    for verb in _VERBS:
        if verb.endswith("y") and verb[-2] not in "aeiou":
            found[f"{verb[:-1]}ies"] = verb
        else:
            found[verb + ("es" if verb.endswith(("ss", "sh", "ch", "x")) else "s")] = verb
    return found


PARTICIPLES = _participles()
"""`riding`, `covered`, `worn` -> verb."""
FINITE = _finite()
"""`rides` -> verb, where a single thing does it."""
PLAIN = frozenset(_VERBS)
"""`ride`, where several things do it."""


def singular(word: str) -> str:
    """The singular of a noun, or the word itself."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _ONE_FORM or word in _NEVER_PLURAL or len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if word.endswith(("sses", "shes", "ches", "xes", "oes")):
        return word[:-2]
    return word[:-1]


def is_plural(word: str) -> bool:
    """Whether a noun looks like several things."""
    return word in _ONE_FORM or singular(word) != word


def canonical(word: str) -> str:
    """Singular, and the one word that stands for its synonyms."""
    single = singular(word)
    return SYNONYMS.get(single, single)
