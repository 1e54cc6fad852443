"""The held-out texts as an evaluation takes them."""

from sluice_models.labelled import Labelled
from sluice_models.language import data
from sluice_models.language.catalogues import LANGUAGES


def labelled() -> Labelled:
    """Texts in one language each, and that language; groups are by the number of words."""
    held_out = [text for text in data.texts() if text.split == "held_out"]
    return Labelled(
        {
            "words": [text.text for text in held_out],
            "label": [text.language for text in held_out],
            "group": [_kind(text) for text in held_out],
        },
        task="classification",
        options={"classes": LANGUAGES, "output": "probabilities"},
    )


def _kind(text: data.Text) -> str:
    if text.words == 1:
        return "one_word"
    return "two_or_three_words" if text.words < data.SENTENCE_WORDS else "sentences"
