"""Where METEOR's published data files are: inside an installed pycocoevalcap, or in a folder given.

METEOR 1.5 comes as a jar (a zip that also holds word lists and WordNet 3.0) with a paraphrase table
beside it. Neither is part of capjax; `pip install pycocoevalcap` (the extra `meteor`) brings both.
They are read as data: no Java, and pycocoevalcap itself is never imported.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import zipfile
import zlib

from capjax.errors import UserError

FOLDER_VARIABLE = "CAPJAX_METEOR"
JAR = "meteor-1.5.jar"
PARAPHRASES = "data/paraphrase-en.gz"


def folder() -> pathlib.Path:
    """The folder that holds meteor-1.5.jar and data/paraphrase-en.gz.

    Raises:
      UserError: pycocoevalcap is not installed, or a file is missing.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        found = pathlib.Path(given).expanduser()
        remedy = f"set {FOLDER_VARIABLE} to the folder that holds it"
    else:
        package = importlib.util.find_spec("pycocoevalcap")
        if package is None or not package.submodule_search_locations:
            raise UserError(
                "METEOR and the synonyms of tuple_f need the METEOR 1.5 data files:"
                f" run pip install pycocoevalcap, or set {FOLDER_VARIABLE} to their folder"
            )
        found = pathlib.Path(package.submodule_search_locations[0]) / "meteor"
        remedy = "run pip install --force-reinstall pycocoevalcap"
    for name in (JAR, PARAPHRASES):
        if not (found / name).is_file():
            raise UserError(f"METEOR's data file {found / name} is missing: {remedy}")
    return found


def member(name: str) -> str:
    """The text of a file inside the jar, such as `function/english.words`.

    Raises:
      UserError: as `folder`, or the jar is damaged.
    """
    jar = folder() / JAR
    try:
        with zipfile.ZipFile(jar) as archive:
            return archive.read(name).decode("utf-8")
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, ValueError) as error:
        raise damaged(jar) from error


def damaged(path: pathlib.Path) -> UserError:
    return UserError(f"METEOR's data file {path} is damaged: delete it and install it again")
