"""The singular of an English noun, by rule and a table of exceptions: to match names of objects.

Made for things that can be seen ("puppies", "wine glasses", "knives"). Some stems are no words
("pants" gives "pant"), so a list should also be searched for the word as it stands. It knows
no parts of speech: "drives" becomes "drive", a verb or not.

The rules, first match wins, for a word of more than three letters that ends in s:
  -ss, -us, -is         stay: glass, cactus, tennis
  -ouses, -uses         house, cactus
  -sses -shes -ches -xes -tzes -zzes   lose es: dresses, brushes, benches, boxes
  -ies                  -y: puppies; four letters or fewer lose s: ties
  -oes                  lose es: tomatoes
  other                 lose s: dogs, horses, vases, gloves
and -men becomes -man.
"""

from __future__ import annotations

import functools

_PAIRS = """
    aches=ache aloes=aloe atlases=atlas avalanches=avalanche axes=axe biases=bias bikinis=bikini
    birdies=birdie bookshelves=bookshelf brownies=brownie cacti=cactus calories=calorie calves=calf
    canoes=canoe canvases=canvas children=child collies=collie cookies=cookie dice=die
    does=doe dwarves=dwarf elves=elf emojis=emoji emus=emu excuses=excuse feet=foot floes=floe
    foes=foe fungi=fungus fuses=fuse gases=gas geese=goose genies=genie gnus=gnu goalies=goalie
    gurus=guru halves=half headaches=headache hippies=hippie hoes=hoe hoodies=hoodie hooves=hoof
    horseshoes=horseshoe irises=iris kiwis=kiwi knives=knife leaves=leaf lenses=lens lives=life
    loaves=loaf martinis=martini menus=menu mice=mouse moustaches=moustache movies=movie
    mustaches=mustache niches=niche oboes=oboe octopi=octopus oxen=ox paninis=panini
    people=person pinkies=pinkie pixies=pixie quiches=quiche quizzes=quiz rabbis=rabbi
    rookies=rookie safaris=safari salamis=salami scarves=scarf selfies=selfie sheaves=sheaf
    shelves=shelf shoes=shoe skis=ski smoothies=smoothie snowshoes=snowshoe taxis=taxi teeth=tooth
    thieves=thief tiptoes=tiptoe toes=toe tvs=tv uses=use veggies=veggie wharves=wharf wives=wife
    wolves=wolf yetis=yeti zombies=zombie zucchinis=zucchini
"""
_SINGULARS = """
    abdomen acumen always athens atlas bias canvas christmas gas lens mars news omen pancreas
    perhaps ramen regimen semen series species specimen stamen texas
"""
_EXCEPTIONS = dict(pair.split("=") for pair in _PAIRS.split()) | {w: w for w in _SINGULARS.split()}
_LOSE_ES = ("sses", "shes", "ches", "xes", "tzes", "zzes", "oes")


@functools.lru_cache(maxsize=1 << 16)
def singular(word: str) -> str:
    """The singular of a lower-case word; a word that is no plural comes back as it is."""
    if word in _EXCEPTIONS:
        return _EXCEPTIONS[word]
    if len(word) <= 3:  # bus, gas, its, men
        return "man" if word == "men" else word
    if word.endswith("men"):
        return word[:-3] + "man"
    if not word.endswith("s") or word.endswith(("ss", "us", "is", "'s")):
        return word
    if word.endswith("uses") and not word.endswith("ouses"):
        return word[:-2]
    if word.endswith(_LOSE_ES):
        return word[:-2]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1]
