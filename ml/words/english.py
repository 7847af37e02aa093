"""English around a word: its article and its plurals.

Own rules, not inflect's (7.6.0 tried): it takes bus, lens, canvas and every other word in -us, -is
or -as for a plural ("bu"), makes "skiss" of skis, and says "a usher", "a SUV", "a 8-ball".
Irregular nouns are few and their list is closed.
"""

import re
import unicodedata

AN = re.compile(
    r"^(?!uni(?!n|m|den)|us[aeiu]|ut[ei]|u[k-]|eu|ewe|one\b|once\b|ufo)[aeiou]"
    r"|^(hour|honest|honou?r|heir)|^[fhlmnrsx][-\d]|^8|^1[18](?!\d)",
    re.IGNORECASE,
)
"""Words spoken with a vowel first: letters, less "a unicycle", plus "an hourglass", "an x-ray"."""

PREPOSITION = re.compile(r" (?:of|in|on|with|for|at|from|by) ")
IRREGULAR = {
    "person": "people",
    "man": "men",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
    "louse": "lice",
    "ox": "oxen",
}
ENDINGS = ("people", "children", "feet", "teeth", "geese")
"""Plurals that end longer words too, and nothing else: "grandchildren"; not mice, of "pumice"."""
VES = {
    one.removesuffix("e")[:-1] + "ves": one
    for one in (
        "knife",
        "wife",
        "wolf",
        "leaf",
        "loaf",
        "shelf",
        "scarf",
        "hoof",
        "calf",
        "half",
        "thief",
        "dwarf",
        "wharf",
        "sheaf",
        "life",
        "elf",
    )
}
OES = ("potatoes", "tomatoes", "heroes", "mangoes", "volcanoes", "buffaloes", "torpedoes")
SINGULAR = frozenset(
    """
    gas atlas canvas bias alias pancreas christmas ananas lens news series species means chaos
    cosmos rhinoceros thermos asbestos molasses headquarters biceps triceps forceps cyclops
    mercedes billiards
    scissors skis glasses sunglasses eyeglasses goggles spectacles binoculars trousers pants
    underpants jeans shorts tights leggings overalls dungarees pyjamas pajamas tongs pliers
    tweezers shears headphones earphones handcuffs clothes stairs barracks crossroads gallows
    bagpipes bellows fries oats
""".split()
)
"""Names in -s of one thing, or of things that have no singular: not refused as plurals."""


def with_article(word: str) -> str:
    """A word with its article: "a dining table", "an aeroplane", "an hourglass", "an SUV"."""
    capitals = re.match(r"[A-Z]{2,}\b", word)
    first = capitals[0] if capitals else ""
    if first and (len(first) <= 3 or first[1] not in "AEIOUY"):  # spoken letter by letter
        return f"{'an' if first[0] in 'AEFHILMNORSX' else 'a'} {word}"
    return f"{'an' if AN.match(unicodedata.normalize('NFD', word)) else 'a'} {word}"


def plurals(word: str) -> set[str]:
    """The plurals of a noun: {"people", "persons"}; in small letters."""
    head, tail = _head(word.casefold())
    forms = {f"{head}s"}
    for one, many in (IRREGULAR | {one: many for many, one in VES.items()}).items():
        if head.endswith(one):
            forms.add(head.removesuffix(one) + many)
    for ending, others in (
        ("s", ("ses",)),
        ("x", ("xes",)),
        ("z", ("zes", "zzes")),
        ("ch", ("ches",)),
        ("sh", ("shes",)),
        ("o", ("oes",)),
        ("is", ("es",)),
        ("ium", ("ia",)),
        ("us", ("i",)),
    ):
        if head.endswith(ending) and not (ending == "us" and len(head) < 5):
            forms |= {head.removesuffix(ending) + other for other in others}
    if re.search(r"[^aeiou]y$", head):
        forms.add(f"{head[:-1]}ies")
    return {form + tail for form in forms} - {word.casefold()}


def singular_of(word: str) -> str | None:
    """The singular of a plural: "hard hat" of "hard hats"; None for what is no plural."""
    head, tail = _head(word.casefold())
    last = re.findall(r"[^\W\d_]*$", head)[0]
    stem = head.removesuffix(last)
    one = _singular_noun(last)
    return None if one is None else stem + one + tail


def _singular_noun(last: str) -> str | None:
    for one, many in IRREGULAR.items():
        if last == many or (many in ENDINGS and last.endswith(many)):
            return last.removesuffix(many) + one
    if last.endswith("women") or (re.search(r"[^aiouy]men$", last) and last != "semen"):
        return f"{last[:-3]}man"
    for many, one in VES.items():
        if last == many or (last.endswith(many) and len(one) > 3 and one != "life"):
            return last.removesuffix(many) + one
    if len(last) < 4 or last in SINGULAR or not last.endswith("s") or last[-2] in "sui":
        return None
    if last.endswith("ies") and len(last) > 4 and not last.endswith(("ookies", "ovies")):
        return f"{last[:-3]}y"
    if re.search(r"(?:ss|sh|ch|x|zz|[^eo]us)es$", last) or last.endswith(OES):
        return last[:-2]
    return last[:-1]


def _head(word: str) -> tuple[str, str]:
    """The noun that takes the plural, with what stands before it, and the rest."""
    found = PREPOSITION.search(word)
    return (word[: found.start()], word[found.start() :]) if found else (word, "")
