r"""The token rules of the Penn Treebank tokenizer that coco-caption uses, as one ordered table.

A rule is (first, pattern, spell): a character class its text can begin with, a regular expression
whose group 1 is the token, and the spelling of that token (brackets to -LRB-, quotes to ` and ').
What the pattern matches after group 1 is context: it is not consumed, but it counts. Among all
rules that match at a place the one with the longest match, context included, wins; among equals
the first. That is how the original's generated scanner decides, and the order below matters only
for ties. Letters in a character class are as they stand; `anycase` marks words in any case.

Behaviour follows the original (Stanford CoreNLP 3.4.1, PTBTokenizer with -preserveLines) and was
compared with it on real captions and on random text. Rules that differ there only in whether a
full stop follows as a token of its own are one rule here: coco-caption drops full stops.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from capjax.metrics.ptb_characters import DIGIT, LETTER, NEWLINE, SPACE, SYMBOL, WORD_LETTER


class Rule(NamedTuple):
    first: str
    pattern: str
    spell: Callable[[str], str]


# --- How a token is spelled ---------------------------------------------------------------------


def as_is(token: str) -> str:
    return token


def nothing(token: str) -> str:
    """White space and the like: scanned, but no token."""
    return ""


def always(spelling: str) -> Callable[[str], str]:
    return lambda token: spelling


def without_soft_hyphens(token: str) -> str:
    return token.replace("\u00ad", "") or "-"


def one_piece(token: str) -> str:
    """A token that holds spaces keeps them as no-break spaces, so that it stays one token."""
    return token.replace(" ", "\u00a0")


def round_brackets(token: str) -> str:
    return token.replace("(", "-LRB-").replace(")", "-RRB-")


def phone(token: str) -> str:
    return round_brackets(one_piece(token))


def ampersand(token: str) -> str:
    return re.sub("(?i:&amp;)", "&", token)


_QUOTES = str.maketrans(
    dict.fromkeys("\u0091\u2018\u201b\u2039", "`")
    | dict.fromkeys("\u0092\u2019\u203a", "'")
    | dict.fromkeys("\u0093\u201c\u00ab", "``")
    | dict.fromkeys('"\u0094\u201d\u00bb', "''")
)


def quote(token: str) -> str:
    """The LaTeX spelling of quotation marks; straight ones count as closing."""
    return token.replace("&apos;", "'").replace("&quot;", "''").translate(_QUOTES)


_FRACTIONS = {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_CURRENCIES = dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$") | {"\u00a2": "cents", "\u00a3": "#"}


def fraction(token: str) -> str:
    return _FRACTIONS.get(token, token)


def currency(token: str) -> str:
    return _CURRENCIES.get(token, token)


def acronym_before_sentence(token: str) -> str:
    """`I. The ...`: a single letter gives its full stop back to the sentence; `U.S.` keeps it."""
    return token[:1] if len(token) == 2 else token


# --- Building blocks ----------------------------------------------------------------------------


def anycase(words: str) -> str:
    """A choice between words (patterns separated by blanks), in any case."""
    return f"(?i:{'|'.join(words.split())})"


def capitalised(words: str) -> str:
    """A choice between words whose first letter must be a capital: `Miss.`, never `miss.`"""
    return "(?:" + "|".join(f"{word[0]}(?i:{word[1:]})" for word in words.split()) + ")"


space = f"[{SPACE}]"
blank = f"[{SPACE}{NEWLINE}]"
digit = f"[{DIGIT}]"
letter = f"[{LETTER}]"
alnum = f"[{LETTER}{DIGIT}]"
apostrophe = r"(?:['\u0092\u2019]|(?i:&apos;))"
any_apostrophe = r"(?:['\u0092\u2019`\u0091\u2018\u201b]|(?i:&apos;))"
pause = "[,;:\u3001]"  # punctuation inside a sentence: a full stop before it ends no sentence
hyphen = "[-_\u058a\u2010\u2011]"

accented = "&[aeiouAEIOU](?i:acute|grave|uml);"  # HTML's way to write an accented vowel
word_letter = f"(?:[{WORD_LETTER}]|{accented})"
word_rest = f"(?:[{WORD_LETTER}{DIGIT}]|{accented})*"
word = f"{word_letter}{word_rest}(?:[.!?]{word_letter}{word_rest})*"
clitic = f"{apostrophe}(?:[msdMSD]|{anycase('re ve ll')})"
not_clitic = f"(?i:n){any_apostrophe}(?i:t)"
stem_of_not = "[A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*"

number = f"[-+]?(?:{digit}*(?:[.:,\u00ad\u066b\u066c]{digit}+)+|{digit}+)"
slash = r"(?:\\?/|\u2044)"
name = "[A-Za-z][A-Za-z0-9_:.-]*"
tag = (
    rf"<(?:[!?][A-Za-z\-][^>\r\n]*"
    rf"|{name}(?: +{name}(?: *= *(?:'[^']*'|\"[^\"]*\"))?)* */?"
    rf"|/{name}) *>"
)

url_end = r'[^ \t\n\f\r"<>|.!?(){},-]'
url_path = rf'/[^ \t\n\f\r"<>|()]+{url_end}'
www_host = r'(?i:www)\.(?:[^ \t\n\f\r"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}'
# The hyphen makes a range from comma to underscore, as in the original: no digits, no capitals.
plain_host = r"(?:[^ \t\n\f\r\"`'<>|.!?(){},-_$]+\.)+" + anycase("com net org edu")
email_label = r'[^ \t\n\f\r"<>|(){}.\u00a0]+'
email = (
    r'(?:(?i:&lt;)|<)?[a-zA-Z0-9][^ \t\n\f\r"<>|()\u00a0{}]*'
    rf"@(?:{email_label}\.)*{email_label}(?:(?i:&gt;)|>)?"
)

initials = r"[A-Za-z](?:\.[A-Za-z])*"
us_compound = (
    f"(?:{anycase('Canada Sino Korean EU Japan non')}-(?i:U\\.S)"
    r"|(?i:U\.S\.-(?:U\.K|U\.S\.S\.R)))"
)
acronym = f"(?:{us_compound}|{initials})"

# Abbreviations that mostly stand before lower-case words: months, days, states, companies, titles.
abbreviation_before_lower = (
    "(?:"
    + "|".join(
        (
            anycase("Jan Feb Mar Apr Jun Jul Aug Sept? Oct Nov Dec Mon Tues? Wed Thu(?:rs)? Fri"),
            anycase("Ala Ariz Calif Colo Conn Ct Dak Fla Ga Ind Kans? Ky Md Mich Minn Mo Mont Neb"),
            anycase("Nev Okla Penn Tenn Va Vt Wisc? Wyo"),
            capitalised("Az Ark Del Ill La Mass Miss Ore Pa Tex Wash"),
            anycase("Inc Cos? Corp Pp?t(?-i:[ye])s? Ltd Plc Rt Bancorp Bhd Assn Univ Intl Sys"),
            anycase(r"tel est ext sq Jr Sr Bros (?:Ed|Ph)\.D Blvd Rd Esq etc al seq Bldg"),
        )
    )
    + ")"
)
# Abbreviations that mostly stand before a capital: titles of persons and places.
abbreviation_before_upper = (
    "(?:"
    + "|".join(
        (
            anycase(
                "Mrs? Ms Drs? Profs? Sens? Reps? Attys? Lt Col Gen Messrs Govs? Adm Rev Maj Sgt"
            ),
            anycase(
                "Cpl Pvt Capt Ste? Ave Pres Lieut Hon Brig Co?mdr Pfc Spc Supts? Det Mt Ft Adj"
            ),
            anycase(
                r"Adv Asst Assoc Ens Insp Mlle Mme Msgr Sfc vs Alex Wm Jos Cie a\.k\.a cf TREAS"
            ),
            anycase("Ph Invt Elec Natl M(?-i:[ft])g Dept"),
            "M(?i:iss)",
            acronym,
        )
    )
    + ")"
)
abbreviation_before_number = anycase("ca figs? prop nos? art bldg pp op") + r"\."
sentence_opener = capitalised(
    "About According Additionally After An A As At But Earlier He Her Here However If In It Last"
    r" Many More Mr\. Ms\. Now Once One Other Our She Since So Some Such That The Their Then There"
    " These They This We When While What Yet You"
)

contraction = anycase(r"cont'd\.? nor'easter c'mon e'er s'mores ev'ry li'l nat'l")
extension = anycase(
    "bat bmp c class cgi cpp dll docx? exe gif gz html? h jar java jpe?g mov mp3 pdf php pl png ppt"
    " ps py sql tar txt wav xml x zip"
)
french = f"(?:[dDoOlL]{any_apostrophe}{alnum})?"  # d'Arc, o'clock
thing = f"{french}{alnum}+(?:{hyphen}{french}{alnum}+)*"
hyphenated = (
    r"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\u00ad]+))+"
)
ampersand_name = "[A-Z]+(?:(?:[+&]|(?i:&amp;))[A-Z]+)+"
slashed_part = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
slashed = rf"{slashed_part}(?:\\?/{slashed_part}){{1,2}}"

phone_gap = "[- \u00a0]"
phone_spaced = (
    rf"(?:\([0-9]{{2,3}}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{{2,4}}{phone_gap})?[0-9]{{2,4}}{phone_gap})"
    rf"[0-9]{{3,4}}{phone_gap}?[0-9]{{3,5}}"
)
phone_dotted = r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"

emoticon_eye = r"[-^x=~<>']"
horizontal_emoticon = r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]"
upright_emoticon = (
    rf"{emoticon_eye}_{emoticon_eye}"
    rf"|\({emoticon_eye}[_.]?{emoticon_eye}\)"
    r"|\([\^x=~<>']-[\^x=~<>'`]\)"
    r"|[\^x=~<>]\.\[(?i:\^x=)[^<]*<>\]"
)

# --- The table ----------------------------------------------------------------------------------

_LETTERS = f"{WORD_LETTER}&"
_ASCII = "A-Za-z\u0130\u0131\u017f\u212a"  # with what equals an i, an s or a k in any case
_APOSTROPHES = r"'\u0092\u2019&"
_QUOTE_MARKS = (
    "`\u2018\u2019\u201a\u201b\u201c\u201d\u0091-\u0094\u201e\u201f\u2039\u203a\u00ab\u00bb"
)

RULES = (
    Rule("cC", r"((?i:c)\+\+)", as_is),
    Rule("cfCF", "((?i:[cf])#)", as_is),
    # Assimilations: the first half is the token, the second half is scanned next.
    Rule("cC", "((?i:can))(?i:not)", as_is),
    Rule("'", "('(?i:t))(?i:was|is)", as_is),
    Rule("gwGW", "((?i:gon|wan))(?i:na)", as_is),
    Rule("gG", "((?i:got))(?i:ta)", as_is),
    Rule("glGL", "((?i:lem|gim))(?i:me)", as_is),
    Rule("<", f"({tag})", one_piece),
    Rule("&", f"({anycase('&mdash; &ndash; &MD;')})", always("--")),
    Rule("\u0096\u0097\u2013-\u2015", "([\u0096\u0097\u2013-\u2015])", always("--")),
    Rule("&", "((?i:&amp;))", always("&")),
    Rule("&", "((?i:&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);))", as_is),
    # Words, and words with a clitic, which is scanned next: dog + 's, do + n't.
    Rule(_LETTERS, f"({word}){clitic}", without_soft_hyphens),
    Rule(f"{_ASCII}\u00ad", f"({stem_of_not}){not_clitic}", without_soft_hyphens),
    Rule(_LETTERS, f"({word})", without_soft_hyphens),
    # Words that hold an apostrophe of their own.
    Rule(_APOSTROPHES, f"({apostrophe}(?i:n){apostrophe}?)", as_is),
    Rule("lLdDjJ", f"([lLdDjJ]{apostrophe})", as_is),
    Rule(_ASCII, f"({anycase('Dunkin somethin ol')}{apostrophe})", as_is),
    Rule(_APOSTROPHES, f"({apostrophe}(?:(?i:em|till?|cause)|[2-9]0(?i:s)))", as_is),
    Rule("A-HJ-XZn", f"([A-HJ-XZn]{any_apostrophe}{letter}{{2,}})", as_is),
    Rule(LETTER, f"({letter}+[aeiouyAEIOUY]{any_apostrophe}[aeiouA-Z]{letter}*)", as_is),
    Rule(_ASCII, f"({contraction})", as_is),
    Rule("oO", f"((?i:O){any_apostrophe}(?i:o))", as_is),
    Rule("yY", f"((?i:y){apostrophe}){letter}", as_is),
    # Addresses.
    Rule("hH", rf'((?i:https?)://[^ \t\n\f\r"<>|(){{}}]+{url_end})', as_is),
    Rule("wW", f"({www_host}{url_path})", as_is),
    Rule("wW", f"({www_host})", as_is),
    Rule(r"^ \t\n\f\r\"`'<>|.!?(){},-_$", f"({plain_host}{url_path})", as_is),
    Rule(r"^ \t\n\f\r\"`'<>|.!?(){},-_$", f"({plain_host})", as_is),
    Rule("<&a-zA-Z0-9", f"({email})", as_is),
    Rule("@", "(@[a-zA-Z_][a-zA-Z_0-9]*)", as_is),
    Rule("#", f"(#{word_letter}+)", as_is),
    # The clitics themselves.
    Rule(_APOSTROPHES, f"({clitic})[^A-Za-z]", quote),
    Rule("nN", f"({not_clitic})[^A-Za-z]", quote),
    # Numbers.
    Rule(DIGIT, f"({digit}{{1,2}}[-/]{digit}{{1,2}}[-/]{digit}{{2,4}})", as_is),
    Rule(f"{DIGIT}+.:,\u00ad\u066b\u066c-", f"({number})", without_soft_hyphens),
    Rule(
        r"\u207a\u207b\u208a\u208b\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u2080-\u2089",
        r"([\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+))",
        as_is,
    ),
    Rule(
        DIGIT,
        f"((?:{digit}{{1,4}}[- \u00a0])?{digit}{{1,4}}{slash}{digit}{{1,4}})",
        one_piece,
    ),
    Rule(r"\u00bc-\u00be\u2153-\u215e", r"([\u00bc-\u00be\u2153-\u215e])", fraction),
    # Fixed expressions of the treebank.
    Rule("-", f"(-{anycase('RRB LRB RCB LCB RSB LSB')}-)", as_is),
    Rule(_ASCII, r"((?i:C\.D\.s|pro-|anti-|S&(?:amp;)?(?:P-500|Ls)))", ampersand),
    Rule("cC", f"((?i:Cap){apostrophe}(?i:n)|(?i:c){apostrophe}(?i:est))", as_is),
    Rule("A-Za-z0-9", f"({slashed})", as_is),
    Rule("A-Z$#", r"([A-Z]*\$|\#)", as_is),
    Rule(
        r"\u0080\u00a2-\u00a5\u060b\u0e3f\u20a0\u20a4\u20ac\uffe0\uffe1\uffe5\uffe6",
        r"([\u0080\u00a2-\u00a5\u060b\u0e3f\u20a0\u20a4\u20ac\uffe0\uffe1\uffe5\uffe6])",
        currency,
    ),
    # Abbreviations and acronyms with their full stops.
    Rule(
        _ASCII,
        rf"({acronym}\.){blank}+(?:{sentence_opener}|{tag}){blank}",
        acronym_before_sentence,
    ),
    Rule("cfpnaboCFPNABO", rf"({abbreviation_before_number}){blank}?{digit}", as_is),
    Rule("pcPC", rf"((?i:pt[eyEY]|co)\.){space}(?i:ltd|lim)", as_is),
    Rule(_ASCII, rf"({abbreviation_before_lower}\.)(?s:..)?", as_is),
    Rule(_ASCII, rf"({abbreviation_before_upper}\.)", as_is),
    Rule(_ASCII, f"({abbreviation_before_upper}){space}", as_is),
    Rule(_ASCII, f"({acronym}){blank}", as_is),
    Rule(_APOSTROPHES, f"({apostrophe}[0-9]{{2}}){blank}", as_is),
    Rule(
        f"{_LETTERS}{DIGIT}",
        rf"((?:{word_letter}|{digit})+(?:\.(?:{word_letter}|{digit})+)*\.{extension})"
        rf"(?:{blank}|[.?!,])",
        as_is,
    ),
    Rule(_LETTERS, rf"({word}\.){pause}", without_soft_hyphens),
    Rule(r"(+0-9", f"({phone_spaced})", phone),
    Rule("+0-9", f"({phone_dotted})", phone),
    # Quotation marks, comparison signs, faces.
    Rule('"&', '("|(?i:&quot;))[A-Za-z0-9$]', always("``")),
    Rule('"&', '("|(?i:&quot;))', always("''")),
    Rule("\x7f", "(\x7f)", nothing),
    Rule("<&", "(<|(?i:&lt;))", always("<")),
    Rule(">&", "(>|(?i:&gt;))", always(">")),
    Rule("<>:;=", f"({horizontal_emoticon})[^A-Za-z0-9]", round_brackets),
    Rule(r"(\-^x=~<>'", f"({upright_emoticon})", round_brackets),
    # Brackets and punctuation.
    Rule("(", r"(\()", always("-LRB-")),
    Rule(")", r"(\))", always("-RRB-")),
    Rule("{", r"(\{)", always("-LCB-")),
    Rule("}", r"(\})", always("-RCB-")),
    Rule(r"\[", r"(\[)", always("-LSB-")),
    Rule(r"\]", r"(\])", always("-RSB-")),
    Rule("-", "(---?-?)(?!-)", always("--")),
    Rule("-", "(-+)", as_is),
    Rule(".", r"(\.{3,5}|(?:\.[ \u00a0]){2,4}\.)", always("...")),
    Rule(r"\u0085\u2026", r"([\u0085\u2026])", always("...")),
    Rule("@#_", "(@+|#+|_+)", as_is),
    Rule("*\\\\", r"(\*+|(?:\\\*){1,3})", as_is),
    Rule(r",;:\u3001?!", r"([,;:\u3001]|[?!]+)", as_is),
    # Longer words with hyphens and ampersands.
    Rule("A-Za-z0-9", rf"({hyphenated}\.){pause}", without_soft_hyphens),
    Rule("A-Za-z0-9", f"({hyphenated})", without_soft_hyphens),
    Rule(f"{LETTER}{DIGIT}", rf"({thing}\.){pause}", as_is),
    Rule(f"{LETTER}{DIGIT}", f"({thing})", as_is),
    Rule("A-Z", rf"({ampersand_name}\.){pause}", ampersand),
    Rule("A-Z", f"({ampersand_name})", ampersand),
    # An apostrophe before a word opens a quotation, more often than not.
    Rule("'", r"(')[A-Za-z][^ \t\n\r\u00a0]", always("`")),
    Rule(_APOSTROPHES, f"({clitic})", quote),
    Rule("nN", f"({not_clitic})", quote),
    Rule(f"{_APOSTROPHES}", f"(''|{apostrophe})", quote),
    Rule(_QUOTE_MARKS, f"([{_QUOTE_MARKS}]{{1,2}})", quote),
    Rule("<>", "(<<|>>)", as_is),
    # What stands alone, and what is no token at all.
    Rule(rf".=/+%&~^|\\{SYMBOL}", rf"([.=/+%&~\^|\\{SYMBOL}])", as_is),
    Rule(
        f"\0{SPACE}\u200b\u200e\u200f\ufeff", f"(\0|{space}+|[\u200b\u200e\u200f\ufeff])", nothing
    ),
    Rule(NEWLINE, f"([{NEWLINE}])", nothing),
    Rule("&", "((?i:&nbsp;))", nothing),
)
