"""Scene graphs from dependency parses: captions with the labels that spaCy's models use."""

import sys
import types

import pytest

from capjax.errors import UserError
from capjax.metrics.parsers.dependencies import Token, scene_graph
from capjax.metrics.scene_graph import load_parser


def parsed(text):
    """Tokens from word[~lemma]/tag/dep/head."""
    tokens = []
    for token in text.split():
        word, tag, dep, head = token.split("/")
        word, _, lemma = word.partition("~")
        tokens.append(Token(word, lemma or word, tag, dep, int(head)))
    return tokens


def graph(text):
    """(objects, attributes, relations), each sorted."""
    found = scene_graph(parsed(text))
    return sorted(found.objects), sorted(found.attributes), sorted(found.relations)


CAPTIONS = {
    "subject, verb, object; adjective and number": (
        "A/DT/det/2 brown/JJ/amod/2 dog/NN/nsubj/3 chases~chase/VBZ/ROOT/3 two/CD/nummod/5"
        " cats~cat/NNS/dobj/3",
        ["cat", "dog"],
        [("cat", "two"), ("dog", "brown")],
        [("dog", "chase", "cat")],
    ),
    "participle after a noun; a noun within the preposition": (
        "A/DT/det/1 man/NN/ROOT/1 riding~ride/VBG/acl/1 a/DT/det/4 wave/NN/dobj/2 on/IN/prep/2"
        " top/NN/pobj/5 of/IN/prep/6 a/DT/det/9 surfboard/NN/pobj/7",
        ["man", "surfboard", "wave"],
        [],
        [("man", "ride", "wave"), ("man", "ride on top of", "surfboard")],
    ),
    "compound noun": (
        "A/DT/det/2 young/JJ/amod/2 girl/NN/ROOT/2 standing~stand/VBG/acl/2 on/IN/prep/3"
        " a/DT/det/7 tennis/NN/compound/7 court/NN/pobj/4",
        ["court", "girl"],
        [("court", "tennis"), ("girl", "young")],
        [("girl", "stand on", "court")],
    ),
    "a quantity is no object": (
        "A/DT/det/2 large/JJ/amod/2 group/NN/ROOT/2 of/IN/prep/2 people~person/NNS/pobj/3"
        " sitting~sit/VBG/acl/2 around/IN/prep/5 a/DT/det/9 wooden/JJ/amod/9 table/NN/pobj/6",
        ["person", "table"],
        [("table", "wooden")],
        [("person", "sit around", "table")],
    ),
    "coordinated adjectives after be": (
        "The/DT/det/1 cat/NN/nsubj/2 is~be/VBZ/ROOT/2 black/JJ/acomp/2 and/CC/cc/3 white/JJ/conj/3",
        ["cat"],
        [("cat", "black"), ("cat", "white")],
        [],
    ),
    "there are": (
        "There/EX/expl/1 are~be/VBP/ROOT/1 two/CD/nummod/3 giraffes~giraffe/NNS/attr/1"
        " in/IN/prep/1 the/DT/det/6 zoo/NN/pobj/4",
        ["giraffe", "zoo"],
        [("giraffe", "two")],
        [("giraffe", "in", "zoo")],
    ),
    "passive with an agent": (
        "A/DT/det/1 ball/NN/nsubjpass/3 is~be/VBZ/auxpass/3 hit/VBN/ROOT/3 by/IN/agent/3"
        " a/DT/det/6 boy/NN/pobj/4",
        ["ball", "boy"],
        [],
        [("boy", "hit", "ball")],
    ),
    "a participle's agent": (
        "A/DT/det/1 kite/NN/ROOT/1 flown~fly/VBN/acl/1 by/IN/agent/2 children~child/NNS/pobj/3",
        ["child", "kite"],
        [],
        [("child", "fly", "kite")],
    ),
    "what is given to the subject of a passive is not its deed": (
        "A/DT/det/1 dog/NN/nsubj/5 given~give/VBN/acl/1 a/DT/det/4 bone/NN/dobj/2"
        " sleeps~sleep/VBZ/ROOT/5",
        ["bone", "dog"],
        [("dog", "give"), ("dog", "sleep")],
        [],
    ),
    "coordinated participles of an active verb": (
        "The/DT/det/1 man/NN/nsubj/3 has~have/VBZ/aux/3 jumped~jump/VBN/ROOT/3 and/CC/cc/3"
        " caught~catch/VBN/conj/3 a/DT/det/7 ball/NN/dobj/5",
        ["ball", "man"],
        [("man", "jump")],
        [("man", "catch", "ball")],
    ),
    "coordinated participles of a passive": (
        "The/DT/det/1 dog/NN/nsubjpass/3 is~be/VBZ/auxpass/3 washed~wash/VBN/ROOT/3 and/CC/cc/3"
        " given~give/VBN/conj/3 bones~bone/NNS/dobj/5 by/IN/agent/5 men~man/NNS/pobj/7",
        ["bone", "dog", "man"],
        [("dog", "wash")],
        [("man", "give", "dog")],
    ),
    "coordinated prepositions": (
        "A/DT/det/1 cat/NN/ROOT/1 on/IN/prep/1 a/DT/det/4 bed/NN/pobj/2 and/CC/cc/2"
        " under/IN/conj/2 a/DT/det/8 sheet/NN/pobj/6",
        ["bed", "cat", "sheet"],
        [],
        [("cat", "on", "bed"), ("cat", "under", "sheet")],
    ),
    "a number after its noun": (
        "A/DT/det/1 bus/NN/ROOT/1 with/IN/prep/1 number/NN/pobj/2 5/CD/nummod/3",
        ["bus", "number"],
        [],
        [("bus", "with", "number")],
    ),
    "a described place is an object": (
        "A/DT/det/1 cake/NN/ROOT/1 on/IN/prep/1 the/DT/det/5 wooden/JJ/amod/5 top/NN/pobj/2"
        " of/IN/prep/5 a/DT/det/8 table/NN/pobj/6",
        ["cake", "table", "top"],
        [("top", "wooden")],
        [("cake", "on", "top"), ("top", "of", "table")],
    ),
    "coordinated subjects and objects": (
        "A/DT/det/1 man/NN/nsubj/5 and/CC/cc/1 a/DT/det/4 woman/NN/conj/1 hold/VBP/ROOT/5"
        " kites~kite/NNS/dobj/5 and/CC/cc/6 flags~flag/NNS/conj/6",
        ["flag", "kite", "man", "woman"],
        [],
        [(a, "hold", b) for a in ("man", "woman") for b in ("flag", "kite")],
    ),
    "next to": (
        "A/DT/det/1 bus/NN/ROOT/1 parked~park/VBN/acl/1 next/RB/advmod/2 to/IN/prep/3"
        " a/DT/det/6 building/NN/pobj/4",
        ["building", "bus"],
        [],
        [("bus", "park next to", "building")],
    ),
    "relative clause": (
        "A/DT/det/1 dog/NN/ROOT/1 that/WDT/nsubj/3 runs~run/VBZ/relcl/1 on/IN/prep/3"
        " the/DT/det/6 beach/NN/pobj/4",
        ["beach", "dog"],
        [],
        [("dog", "run on", "beach")],
    ),
    "relative pronoun as object": (
        "The/DT/det/1 horse/NN/nsubj/6 that/WDT/dobj/5 the/DT/det/4 man/NN/nsubj/5"
        " rides~ride/VBZ/relcl/1 is~be/VBZ/ROOT/6 brown/JJ/acomp/6",
        ["horse", "man"],
        [("horse", "brown")],
        [("man", "ride", "horse")],
    ),
    "owner": (
        "The/DT/det/1 man/NN/poss/3 's/POS/case/1 hat/NN/nsubj/4 is~be/VBZ/ROOT/4 red/JJ/acomp/4",
        ["hat", "man"],
        [("hat", "red")],
        [("man", "have", "hat")],
    ),
    "verb alone": (
        "A/DT/det/1 baby/NN/nsubj/3 is~be/VBZ/aux/3 sleeping~sleep/VBG/ROOT/3",
        ["baby"],
        [("baby", "sleep")],
        [],
    ),
    "coordinated nouns after a preposition": (
        "A/DT/det/1 table/NN/ROOT/1 covered~cover/VBN/acl/1 with/IN/prep/2 food/NN/pobj/3"
        " and/CC/cc/4 drinks~drink/NNS/conj/4",
        ["drink", "food", "table"],
        [],
        [("table", "cover with", "drink"), ("table", "cover with", "food")],
    ),
    "an infinitive has the subject of its verb; a pronoun owns nothing": (
        "A/DT/det/1 woman/NN/nsubj/3 is~be/VBZ/aux/3 trying~try/VBG/ROOT/3 to/TO/aux/5"
        " eat/VB/xcomp/3 her/PRP$/poss/7 sandwich/NN/dobj/5",
        ["sandwich", "woman"],
        [],
        [("woman", "eat", "sandwich")],
    ),
    "coordinated verbs share their subject": (
        "A/DT/det/1 man/NN/nsubj/2 sits~sit/VBZ/ROOT/2 on/IN/prep/2 a/DT/det/5 bench/NN/pobj/3"
        " and/CC/cc/2 reads~read/VBZ/conj/2 a/DT/det/9 newspaper/NN/dobj/7",
        ["bench", "man", "newspaper"],
        [],
        [("man", "read", "newspaper"), ("man", "sit on", "bench")],
    ),
    "pronouns are dropped": (
        "He/PRP/nsubj/1 takes~take/VBZ/ROOT/1 off/RP/prt/1 his/PRP$/poss/4 shoes~shoe/NNS/dobj/1",
        ["shoe"],
        [],
        [],
    ),
    "particle": (
        "A/DT/det/1 boy/NN/nsubj/2 takes~take/VBZ/ROOT/2 off/RP/prt/2 his/PRP$/poss/5"
        " shoes~shoe/NNS/dobj/2",
        ["boy", "shoe"],
        [],
        [("boy", "take off", "shoe")],
    ),
    "noun after be": (
        "The/DT/det/1 lady/NN/nsubj/2 is~be/VBZ/ROOT/2 a/DT/det/4 chef/NN/attr/2",
        ["chef", "lady"],
        [("lady", "chef")],
        [],
    ),
    "nouns and prepositions alone": (
        "A/DT/det/2 street/NN/compound/2 sign/NN/ROOT/2 in/IN/prep/2 front/NN/pobj/3 of/IN/prep/4"
        " a/DT/det/7 car/NN/pobj/5 with/IN/prep/7 no/DT/det/10 wheels~wheel/NNS/pobj/8",
        ["car", "sign", "wheel"],
        [("sign", "street")],
        [("car", "with", "wheel"), ("sign", "in front of", "car")],
    ),
    "a place that is an object": (
        "A/DT/det/1 cake/NN/ROOT/1 on/IN/prep/1 the/DT/det/4 top/NN/pobj/2",
        ["cake", "top"],
        [],
        [("cake", "on", "top")],
    ),
    "nothing": ("Running~run/VBG/ROOT/0 fast/RB/advmod/0", [], [], []),
}


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_parsed_caption_becomes_its_graph(name):
    text, objects, attributes, relations = CAPTIONS[name]
    assert graph(text) == (objects, attributes, relations)


def test_no_words():
    assert scene_graph([]).objects == ()


def test_the_spacy_parser_without_spacy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.delitem(sys.modules, "capjax.metrics.parsers.spacy", raising=False)
    with pytest.raises(UserError, match="needs spaCy: install it with `pip install spacy`"):
        load_parser("capjax.metrics.parsers.spacy")


def test_a_missing_spacy_model_is_named(monkeypatch):
    def load(name, **_):
        raise OSError(f"[E050] Can't find model {name!r}")

    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=load))
    with pytest.raises(UserError, match="python -m spacy download en_core_web_md"):
        load_parser("capjax.metrics.parsers.spacy", model="en_core_web_md")


def test_the_spacy_parser_reads_the_tokens_of_a_document(monkeypatch):
    text, objects, _, relations = CAPTIONS["passive with an agent"]

    def document(caption):
        tokens = parsed(text)
        heads = [types.SimpleNamespace(i=token.head) for token in tokens]
        return [
            types.SimpleNamespace(
                text=token.text, lemma_=token.lemma, tag_=token.tag, dep_=token.dep, head=head
            )
            for token, head in zip(tokens, heads, strict=True)
        ]

    pipeline = types.SimpleNamespace(pipe=lambda captions: map(document, captions))
    fake = types.SimpleNamespace(load=lambda name, **_: pipeline)
    monkeypatch.setitem(sys.modules, "spacy", fake)
    (found,) = load_parser("capjax.metrics.parsers.spacy")(["A ball is hit by a boy"])
    assert sorted(found.objects) == objects
    assert list(found.relations) == relations
