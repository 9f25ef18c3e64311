"""Texts that tokenizers disagree about, the same on every machine.

`generate()` draws 10,000 of twelve kinds. Only code points that Unicode 3.2 knew are drawn, besides
the emoji that are listed: what Python, ftfy and regex know about those does not change with their
versions. `CASES` are chosen by hand.
"""

import itertools
import random
import unicodedata

BLOCKS = {
    "latin": (0x41, 0x24F), "greek": (0x370, 0x3FF), "cyrillic": (0x400, 0x4FF),
    "armenian": (0x530, 0x58F), "hebrew": (0x590, 0x5FF), "arabic": (0x600, 0x6FF),
    "devanagari": (0x900, 0x97F), "tamil": (0xB80, 0xBFF), "thai": (0xE00, 0xE7F),
    "georgian": (0x10A0, 0x10FF), "hangul": (0xAC00, 0xD7A3), "jamo": (0x1100, 0x11FF),
    "ethiopic": (0x1200, 0x137F), "cherokee": (0x13A0, 0x13FF), "khmer": (0x1780, 0x17FF),
    "extended": (0x1E00, 0x1EFF), "polytonic": (0x1F00, 0x1FFF), "punctuation": (0x2000, 0x206F),
    "letterlike": (0x2100, 0x214F), "numbers": (0x2150, 0x218F), "arrows": (0x2190, 0x22FF),
    "symbols": (0x2500, 0x27BF), "kana": (0x3040, 0x30FF), "han": (0x4E00, 0x9FA5),
    "compatible": (0xF900, 0xFAFF), "presentation": (0xFB00, 0xFDFF), "wide": (0xFF00, 0xFFEF),
    "gothic": (0x10330, 0x1034A), "mathematical": (0x1D400, 0x1D7FF), "han2": (0x20000, 0x2A6D6),
}  # fmt: skip
WORDS = (
    "a an the two dog dogs cat man woman child children photo photograph picture painting of in on "
    "under beside holding riding running surfing red green yellow snowy street kitchen skateboard "
    "umbrella giraffe frisbee refrigerator motorcycle antidisestablishmentarianism qwrtzpsdfg "
    "it i you we they he she don can won is was are Barcelona McDonald iPhone NASA eBay"
)
CLITICS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'Ll", "’s", "ʼs", "`s", "'ſ",
           "'", "''", "'x", "'dve", "s'", "'tis", "'70s")  # fmt: skip
ENTITIES = ("&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&#x27;", "&apos;", "&nbsp;", "&eacute;",
            "&EACUTE;", "&amp;amp;", "&amp;lt;b&amp;gt;", "&amp;amp;amp;", "&amp;#39;", "&hellip;",
            "&mdash;", "&copy", "&notit;", "&#0;", "&#128;", "&#x1F600;", "&#xD800;", "&#11;",
            "&bogus;", "&", "&;", "<b>", "</b>", "<br/>", "&lt;br /&gt;", "&ThickSpace;", "&Jscr;",
            "&#8217;", "&frac12;", "&szlig;", "&SZLIG;", "&amp;nbsp;")  # fmt: skip
EMOJI = (  # with skin tones, joiners, flags, keycaps, tags, variation selectors; parts alone
    "\U0001f600", "\u2764\ufe0f", "\u2764", "\U0001f44d\U0001f3fd",
    "\U0001f469\U0001f3ff\u200d\U0001f680",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1e9\U0001f1ea",
    "\U0001f1ef\U0001f1f5\U0001f1eb\U0001f1f7", "1\ufe0f\u20e3", "#\ufe0f\u20e3",
    "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
    "\U0001f937\u200d\u2640\ufe0f", "\u2603", "\u2708\ufe0e", "\u00a9\ufe0f",
    "\U0001f9d1\U0001f3fb\u200d\U0001f91d\u200d\U0001f9d1\U0001f3fe", "\U0001f415\u200d\U0001f9ba",
    "\U0001f600\U0001f600\U0001f600", "\u200d", "\ufe0f", "\U0001f3fd",
)  # fmt: skip
SPACES = (" ", "  ", "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0",
          "\u1680", "\u180e", "\u2000", "\u2003", "\u2009", "\u200b", "\u2028", "\u2029", "\u202f",
          "\u205f", "\u2060", "\u3000", "\ufeff")  # fmt: skip
CONTROLS = (*map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA0)), "\xad", "\u200c", "\u200d",
            "\u200e", "\u202e", "\u2066", "\u206a", "\ufff9", "\ufffc", "\ufffd", "\ufffe",
            "\ud800", "\udc00", "\ud83d\ude00", "\x1b[31m", "\x1b[0m", "\x1b[2J")  # fmt: skip
QUOTED = ("“quoted”", "‘single’", "it’s", "rock ’n’ roll", "5′ 6″", "«guillemets»", "„low“", "café",
          "naïve", "São Paulo", "Ångström", "piñata", "Zürich", "crème brûlée", "10 €", "20°C",
          "1 – 2", "wait…", "Łódź", "Москва", "日本語", "ﬁne ﬂour", "™", "½ cup")  # fmt: skip
CODECS = ("latin-1", "cp1252", "cp1251", "cp437", "mac-roman", "cp1253")
SPECIALS = ("<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>", "<|EndOfText|>", "<|startoftext",
            "startoftext|>", "<|", "|>", "<start_of_text>", "<end_of_text>", "[CLS]", "[SEP]",
            "[MASK]", "[UNK]", "[PAD]", "</w>", "##ing", "<w>")  # fmt: skip
NUMBERS = ("0", "7", "42", "1999", "3.14", "1,000", "10th", "2x4", "B52s", "x86_64", "½", "²", "Ⅻ",
           "①", "٣", "४२", "五", "1e-5", "0x1F", "1/2", "#1", "50%", "$9.99", "12:30", "A1B2C3",
           "UPPER", "CamelCase", "sHoUtInG", "ǅ", "İstanbul", "STRAßE", "ΣΑΣ",
           "\u212a", "\u212b")  # fmt: skip
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
KINDS = ("captions", "scripts", "any", "entities", "emoji", "spaces", "controls", "quotes",
         "specials", "numbers", "signs", "long")  # fmt: skip
COUNT = 10_000


def _known(first, last):
    old = unicodedata.ucd_3_2_0
    return [chr(c) for c in range(first, last + 1) if old.category(chr(c)) not in ("Cn", "Co")]


class _Draw:
    """Draws from `random()` alone: the one method whose numbers Python promises to keep."""

    def __init__(self, seed):
        self._random = random.Random(seed).random
        self.words = WORDS.split()
        self.blocks = [_known(*block) for block in BLOCKS.values()]
        self.every = [c for c in _known(0x20, 0xFFFF) if not 0xD800 <= ord(c) <= 0xDFFF]

    def below(self, count):
        return int(self._random() * count)

    def of(self, choices):
        return choices[self.below(len(choices))]

    def word(self):
        word = self.of(self.words)
        style = self.below(8)
        return word.upper() if style == 0 else word.capitalize() if style == 1 else word

    def mixed(self, pieces, most=8):
        """Some of the pieces among words, with and without spaces between."""
        out = []
        for _ in range(1 + self.below(most)):
            out += [self.of(pieces) if self.below(2) else self.word(), self.of(("", " ", " "))]
        return "".join(out)

    def script(self):
        block = self.of(self.blocks)
        words = ["".join(self.of(block) for _ in range(1 + self.below(8))) for _ in range(3)]
        return " ".join(words + [self.word()] * self.below(2))

    def mojibake(self):
        text = self.mixed(QUOTED, 4)
        for _ in range(1 + self.below(2)):
            text = text.encode("utf-8", "replace").decode(self.of(CODECS), "replace")
        return text if self.below(3) else self.mixed(QUOTED, 4)

    def signs(self):
        runs = ("".join(self.of(SIGNS) for _ in range(1 + self.below(6))) for _ in range(4))
        return "".join(itertools.chain(*((run, self.word() if self.below(2) else "")
                                         for run in runs)))  # fmt: skip

    def long(self):
        style = self.below(4)
        if style == 0:
            return self.of(self.words) * (20 + self.below(60))
        if style == 1:
            return self.of(self.every) * (1 + self.below(300))
        if style == 2:
            return "".join(self.of("abcdefghijklmnopqrstuvwxyz") for _ in range(self.below(400)))
        return " ".join(self.word() for _ in range(60 + self.below(100)))

    def one(self, kind):
        if kind in ("scripts", "quotes", "signs", "long"):
            name = {"scripts": "script", "quotes": "mojibake"}.get(kind, kind)
            return getattr(self, name)()
        if kind == "any":
            return "".join(self.of(self.every) for _ in range(1 + self.below(12)))
        if kind == "captions":
            words = [self.word() + (self.of(CLITICS) if self.below(3) == 0 else "")
                     for _ in range(1 + self.below(14))]  # fmt: skip
            return " ".join(words) + self.of(("", ".", " .", "!", ", etc."))
        pieces = {"entities": ENTITIES, "emoji": EMOJI, "spaces": SPACES, "controls": CONTROLS,
                  "specials": SPECIALS, "numbers": NUMBERS}[kind]  # fmt: skip
        return self.mixed(pieces)


def generate(seed=20):
    """(kind, text) 10,000 times, the kinds in turn."""
    draw = _Draw(seed)
    return [(kind, draw.one(kind)) for kind in itertools.islice(itertools.cycle(KINDS), COUNT)]


CASES = (
    "", " ", "a", "!", "Hello World!", "a photo of a cat.", "A diagram", "a  b\tc\nd",
    *(f"it{clitic} here" for clitic in CLITICS), *(f"x{e}y" for e in ENTITIES),
    *EMOJI[:16], *SPECIALS, *QUOTED, *NUMBERS,
    "Ã©tÃ©", "â€œquotedâ€\x9d", "donâ€™t", "&lt;|startoftext|&gt; a dog", "a<|endoftext|>b",
    "ZWJ\u200djoiner", "soft\xadhyphen", "e\u0301 \u00e9", "\u1100\u1161\u11a8 각", "ﬃ ſ ŉ",
    "ＬＯＵＤ　ＮＯＩＳＥＳ", "a" * 80, "ab " * 80, "!" * 90, "\x00\x01\x02", "\ud83d",
    "\x1b[1mbold\x1b[0m", "一二三 3 匹の猫", "สวัสดี", "नमस्ते", "مرحبا", "שלום", "한국어",
    "Ελλάς ΟΔΟΣ", "ǅungla", "\u0130I\u0131i", "www.example.org/a_b?c=d&e=f", "user@example.org",
    "C:\\dir\\file.txt", "1234567890", "__init__",
)  # fmt: skip
