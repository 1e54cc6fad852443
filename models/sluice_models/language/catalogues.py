"""The messages of Django's catalogues: which message, in which language, in which words."""

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

# The languages that wordfreq and Django both have, that put spaces between words, and that have a hundred messages of
# four words or more.
LANGUAGES = (
    "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id", "is", "it",
    "lt", "lv", "mk", "ms", "nb", "nl", "pl", "pt", "ro", "ru", "sh", "sk", "sl", "sv", "tr", "uk", "ur", "vi",
)  # fmt: skip
# wordfreq's list of Serbo-Croatian is in Latin letters; so is this catalogue.
_CATALOGUES: Mapping[str, str] = {language: language for language in LANGUAGES} | {"sh": "sr_Latn"}
_MARKUP = re.compile(r"%\([^)]*\)[-#0+ ]*\d*(?:\.\d+)?[a-zA-Z]|%[a-zA-Z%]|\{[^{}]*\}|<[^<>]*>")


class Message(NamedTuple):
    """One form of a message in one language; a message has several forms where it counts something."""

    id: str
    language: str
    text: str


def messages() -> Iterator[Message]:
    """All messages in all `LANGUAGES`, catalogue by catalogue. The ids are English, so they are its messages."""
    from babel.messages.mofile import read_mo

    languages = {catalogue: language for language, catalogue in _CATALOGUES.items()}
    for file in sorted(_django().rglob("LC_MESSAGES/*.mo")):
        language = languages.get(file.parents[1].name)
        if language is None:
            continue
        with file.open("rb") as stream:
            catalogue = read_mo(stream)
        for message in catalogue:
            ids, forms = _forms(message.id), _forms(message.string)
            if ids and ids[0]:
                yield from (Message(ids[0], language, clean(form)) for form in forms)
                yield from (Message(ids[0], "en", clean(form)) for form in ids)


def clean(text: str) -> str:
    """Its words, those that have a letter, with single spaces between them; placeholders and HTML are no words."""
    words = unicodedata.normalize("NFC", html.unescape(_MARKUP.sub(" ", text))).split()
    return " ".join(word for word in words if any(map(str.isalpha, word)))


def _forms(text: object) -> tuple[str, ...]:
    """The singular and the plurals of what counts something; the one form of anything else."""
    return tuple(text) if isinstance(text, list | tuple) else (str(text),)


def _django() -> Path:
    spec = find_spec("django")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
