"""The language classifier: facts of its data, its words, and what it must answer, served as it will be."""

import csv
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
import tensorflow as tf

from sluice.export import ExportError, export_endpoints
from sluice_models import train
from sluice_models.language import data, evaluation, lookup, network, serving, vocabulary
from sluice_models.language import model as language
from sluice_models.language.batches import BUCKETS, batches, in_buckets, look_up
from sluice_models.language.catalogues import LANGUAGES, clean, messages
from sluice_models.language.embedding import WordVectors
from tests.models.labelled_rows import read

pytestmark = pytest.mark.timeout(1200)  # the first test that needs the model trains it


@pytest.fixture(scope="session")
def texts() -> list[data.Text]:
    return data.texts()


@pytest.fixture(scope="session")
def by_split(texts) -> dict[str, list[data.Text]]:
    found = defaultdict(list)
    for text in texts:
        found[text.split].append(text)
    return found


@pytest.fixture(scope="session")
def folder(language_dir):
    """The trained and exported model."""
    return language_dir / "language" / "1"


@pytest.fixture(scope="session")
def served(folder, serve):
    return serve(folder)


@pytest.fixture(scope="session")
def report(folder) -> dict:
    return json.loads((folder / "assets.extra" / "report.json").read_text(encoding="utf-8"))


def inputs(*texts: str, words: int = 0) -> dict[str, np.ndarray]:
    rows = [text.split(" ") for text in texts]
    width = words or max(map(len, rows))
    return {
        "words": np.array([row + [""] * (width - len(row)) for row in rows], object),
        "lengths": np.array([len(row) for row in rows], np.int32),
    }


def languages(served, *texts: str) -> list[str]:
    answer = served.call("serving_default", inputs(*texts))["language"]
    return [code.decode() for code in answer]


def test_every_language_has_sentences_in_every_part_of_the_split(texts):
    assert len(LANGUAGES) == 37
    counts = Counter((text.language, text.split) for text in texts if text.words >= data.SENTENCE_WORDS)
    assert min(counts[language, "training"] for language in LANGUAGES) >= 70
    assert min(counts[language, "held_out"] for language in LANGUAGES) >= 20


def test_no_text_is_there_twice(texts):
    assert len({text.text for text in texts}) == len(texts)


def test_a_message_is_in_the_same_part_of_the_split_in_every_language(texts, by_split):
    assert {name: len(found) for name, found in by_split.items()} == pytest.approx(
        {"training": 18000, "held_out": 5000, "validation": 2500}, rel=0.1
    )
    parts = {text.text: text.split for text in texts}
    of_message = defaultdict(set)
    for message in messages():
        if message.text in parts:
            of_message[message.id].add(parts[message.text])
    assert len(of_message) > 800
    assert all(len(found) == 1 for found in of_message.values())


def test_messages_that_are_alike_are_in_the_same_part_of_the_split():
    ids = ["Enter a valid IPv4 address.", "Enter a valid IPv6 address.", "Enter a valid time.", "Log out"]
    alike = data._alike(ids)
    assert alike[ids[0]] == alike[ids[1]] == ids[0]
    assert alike[ids[3]] == ids[3]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("“%(value)s” value must be an integer.", "value must be an integer."),
        ("Ensure that there are no more than %(max)d digits.", "Ensure that there are no more than digits."),
        ('See <a href="{url}">the %s page</a>&nbsp;—&nbsp;now', "See the page now"),
        ("%d of %d, {name}: 100 %%", "of"),
    ],
)
def test_placeholders_html_and_what_has_no_letter_are_no_words(message, text):
    assert clean(message) == text


def test_a_text_that_switches_is_in_the_language_it_ends_in_and_there_in_both_orders(by_split):
    training = by_split["training"]
    made = data.switching(training, 100)
    assert made == data.switching(training, 100)
    assert len(made) == 100
    for one, other in zip(made[::2], made[1::2], strict=True):
        assert (one.begins, one.language) == (other.language, other.begins)
        assert one.begins != one.language
        assert sorted(one.text.split()) == sorted(other.text.split())
        assert one.words <= data.LONGEST_WORDS


def test_switching_texts_are_made_of_one_part_of_the_split(by_split):
    held_out = {text.text for text in by_split["held_out"]}
    for made in data.switching(by_split["held_out"], 50):
        words = made.text.split(" ")
        cuts = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
        assert any(one in held_out and other in held_out for one, other in cuts)


def test_the_data_are_written_as_a_table(tmp_path, texts, monkeypatch):
    monkeypatch.setattr(data, "texts", lambda: texts)
    rows = list(csv.DictReader(train.data("language", tmp_path).read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(texts)
    assert list(rows[0]) == ["text", "language", "split"]
    assert {row["split"] for row in rows} == set(data.SPLITS)


def test_an_evaluation_takes_the_held_out_texts_by_kind(tmp_path, texts, by_split, monkeypatch):
    monkeypatch.setattr(data, "texts", lambda: texts)
    train.data("language", tmp_path)
    request, rows = read(tmp_path, "language")
    held_out = by_split["held_out"]
    assert (rows["words"], rows["label"]) == ([each.text for each in held_out], [each.language for each in held_out])
    assert {*rows["words"]}.isdisjoint(text.text for text in by_split["training"])
    assert [[word.decode() for word in text.encode().split()] for text in rows["words"]] == [
        text.split(" ") for text in rows["words"]
    ]
    kinds = evaluation.groups(held_out)
    for kind in ("one_word", "two_or_three_words", "sentences"):
        of_kind = [text for text, group in zip(rows["words"], rows["group"], strict=True) if group == kind]
        assert of_kind == [text.text for text in kinds[kind]]
    assert len({*rows["group"]}) == 3
    assert request["options"] == {"classes": [*LANGUAGES], "output": "probabilities"}


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("“Hallo,”", "hallo"),
        ("ÜBER", "über"),
        ("İstanbul", "istanbul"),
        ("λόγος", "λόγοσ"),
        ("Straße", "strasse"),
        ("l’utilisateur", "utilisateur"),
        ("don't", "don't"),
        ("об'єкт", "об'єкт"),
        ("हिन्दी।", "हिन्दी"),
        ("(…)", ""),
        ("", ""),
    ],
)
def test_words_are_looked_up_as_the_vocabulary_has_them(written, normalised):
    assert lookup.normalised(tf.constant([written])).numpy()[0].decode() == normalised


def test_an_unknown_word_is_read_by_its_last_three_letters(tmp_path):
    rows = lookup.WordRows(["und", "der"], tmp_path / "words.txt")
    known, other, ending, short = rows(tf.constant(["Und", "wunderbar", "sonderbar", "ß"])).numpy()
    assert known == 0
    assert other == ending == 2 + lookup.ending_buckets(["bar"]).numpy()[0]
    assert short == 2 + lookup.ending_buckets(["ss"]).numpy()[0]


WORD_LISTS = {"de": [["der"], ["und", "die"], ["haus"]], "en": [["the"], ["die"], [], ["house", "haus"]]}


@pytest.fixture
def small_lists(monkeypatch):
    """Two languages with lists of a few words, instead of wordfreq's."""
    monkeypatch.setattr(vocabulary, "_lists", lambda size: [WORD_LISTS.get(code, [[]]) for code in LANGUAGES])


def test_the_vocabulary_has_the_most_frequent_words_first_whatever_the_language(small_lists):
    assert list(vocabulary.vocabulary(4).words) == ["der", "the", "und", "die"]
    assert vocabulary.vocabulary(6).rows == 6 + lookup.ENDINGS


def test_more_words_than_there_are_are_refused(small_lists):
    with pytest.raises(ValueError, match=r"at most 6 words.*got 7"):
        vocabulary.vocabulary(7)


def test_facts_are_log_probabilities_of_the_languages(small_lists):
    facts = vocabulary.vocabulary(6).facts
    shares = np.full(len(LANGUAGES), 10**-8.5)
    shares[LANGUAGES.index("de")], shares[LANGUAGES.index("en")] = 10**-0.01, 10**-0.01
    expected = np.clip(255 * (1 + np.log10(shares / shares.sum()) / 4), 0, 255).round()
    np.testing.assert_array_equal(facts[3], expected)  # "die"


def test_an_ending_says_in_which_languages_words_end_so(small_lists):
    facts = vocabulary.vocabulary(2).facts[2:]
    only_german, in_both = (facts[lookup.ending_buckets([ending]).numpy()[0]] for ending in ("und", "aus"))
    assert only_german.argmax() == LANGUAGES.index("de")
    assert np.flatnonzero(in_both > 200).tolist() == [LANGUAGES.index("de"), LANGUAGES.index("en")]


def test_batches_hold_every_text_once_an_epoch_and_are_padded_to_their_bucket(by_split, tmp_path):
    some = by_split["validation"][:200]
    rows = look_up(some, lookup.WordRows(["und"], tmp_path / "words.txt"))
    dataset = batches(rows, 32, seed=3)
    epochs = [list(dataset.as_numpy_iterator()) for _ in range(2)]
    for epoch in epochs:
        assert len(epoch) == len(dataset)
        assert sum(len(lengths) for (_, lengths), _ in epoch) == 200
        assert {rows.shape[1] for (rows, _), _ in epoch} <= set(BUCKETS)
        assert all((lengths <= rows.shape[1]).all() for (rows, lengths), _ in epoch)
    (first, _), _ = epochs[0][0]
    (second, _), _ = epochs[1][0]
    assert not np.array_equal(first, second)


def test_each_text_rides_in_the_smallest_bucket_that_takes_it():
    lengths = np.array([1, 4, 5, 16, 17, 32], np.int32)
    assert {bound: chosen.tolist() for bound, chosen in in_buckets(lengths, 10)} == {
        4: [0, 1],
        8: [2],
        16: [3],
        32: [4, 5],
    }


def test_of_held_out_sentences_more_than_95_percent_are_right(report):
    assert report["held_out_accuracy"]["model"]["sentences"] >= 0.95
    assert report["held_out_texts"]["sentences"] >= 1500
    assert (report["seed"], report["words"]) == (network.SEED, language.WORDS)


def test_where_a_text_changes_its_language_the_order_of_words_decides(report):
    accuracy = report["held_out_accuracy"]
    assert accuracy["model"]["switching"] >= 0.9
    assert accuracy["model"]["switching_shuffled"] <= 0.55


@pytest.mark.deep
def test_a_bag_of_words_is_no_better_than_chance_where_a_text_changes_its_language(by_split, tmp_path):
    known = vocabulary.vocabulary(language.WORDS)
    word_rows = lookup.WordRows(known.words, tmp_path / "words.txt")
    texts = language.training_texts([text for found in by_split.values() for text in found])
    bag, _ = language.trained(known, look_up(texts, word_rows), ordered=False)
    answers, groups = {"bag": evaluation.by_model(bag)}, evaluation.groups(by_split["held_out"])
    accuracy = evaluation.accuracies(answers, groups, word_rows)["bag"]
    assert accuracy["switching"] <= 0.5
    assert accuracy["sentences"] >= 0.95


def test_served_it_answers_as_often_right_as_reported(served, report, by_split):
    sentences = [text for text in by_split["held_out"] if text.words >= data.SENTENCE_WORDS]
    answers = []
    for start in range(0, len(sentences), 256):
        chosen = [text.text for text in sentences[start : start + 256]]
        answers += languages(served, *chosen)
    right = np.mean([answer == text.language for answer, text in zip(answers, sentences, strict=True)])
    assert right == pytest.approx(report["held_out_accuracy"]["model"]["sentences"], abs=2e-3)


def test_the_same_words_in_another_order_are_in_another_language(served):
    english, german = "Please enter a valid email address.", "Bitte geben Sie eine gültige Adresse ein."
    assert languages(served, english, german) == ["en", "de"]
    assert languages(served, f"{english} {german}", f"{german} {english}") == ["de", "en"]


def test_upper_case_and_punctuation_change_nothing(served):
    plain, loud = "bitte geben sie eine gültige adresse ein", "„BITTE“ GEBEN SIE (EINE) GÜLTIGE ADRESSE EIN!"
    answer = served.call("serving_default", inputs(plain, loud))["probabilities"]
    np.testing.assert_allclose(answer[0], answer[1], rtol=0, atol=1e-6)


def test_padding_changes_no_answer(served):
    text = "Bitte geben Sie eine gültige Adresse ein."
    alone = served.call("serving_default", inputs(text))
    for bucket in (8, 16, 32):
        padded = inputs(text, "une phrase", words=bucket)
        padded["words"][0, 7:] = "garbage"
        answer = served.call("serving_default", padded)
        assert answer["language"][0] == alone["language"][0] == b"de"
        np.testing.assert_allclose(answer["probabilities"][0], alone["probabilities"][0], rtol=0, atol=1e-6)


def test_bytes_that_are_no_text_harm_no_other_row(served):
    texts = inputs("Bitte geben Sie eine gültige Adresse ein.", "x y z")
    alone = served.call("serving_default", inputs("Bitte geben Sie eine gültige Adresse ein."))
    texts["words"][1, :3] = [b"\xff\xfe", b"\x00", b"\xc3"]
    answer = served.call("serving_default", texts)
    np.testing.assert_allclose(answer["probabilities"][0], alone["probabilities"][0], rtol=0, atol=1e-6)
    assert np.isfinite(answer["probabilities"]).all()


def test_the_answer_is_the_most_probable_language(served):
    answer = served.call("serving_default", inputs("Saisissez une date valide.", "Voer een geldige datum in."))
    assert answer["probabilities"].dtype == np.float32
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert [LANGUAGES[i] for i in answer["probabilities"].argmax(axis=1)] == ["fr", "nl"]
    assert answer["language"].tolist() == [b"fr", b"nl"]


def test_the_contract_says_how_texts_of_uneven_length_are_sent(served, folder):
    contract = served.contract
    assert contract == json.loads((folder / "assets.extra" / "contract.json").read_text(encoding="utf-8"))
    signature = contract["signatures"]["serving_default"]
    assert signature["kind"] == "sequences"
    words = signature["inputs"]["words"]
    assert (words["dtype"], words["pad"], words["text"]) == ("string", "", "words")
    assert [axis.get("ragged", False) for axis in words["axes"]] == [False, True]
    assert signature["lengths"] == {"word": "lengths"}
    assert signature["buckets"] == {"word": [4, 8, 16, 32]}
    assert signature["outputs"]["probabilities"]["axes"][1]["size"] == len(LANGUAGES)
    example = contract["example"]["inputs"]["words"]
    assert languages(served, " ".join(example)) == ["de"]


def test_the_vocabulary_travels_in_the_saved_model(folder):
    words = (folder / "assets" / "words.txt").read_text(encoding="utf-8").splitlines()
    assert len(words) == language.WORDS
    assert {"the", "und", "не"} <= set(words[:500])


def test_an_export_that_answers_another_language_is_refused(tmp_path, quick_verification, by_split):
    word_rows = lookup.WordRows(["und", "der"], tmp_path / "words.txt")
    served = serving.serving_model(network.classifier(WordVectors(2 + lookup.ENDINGS, 4, None)), word_rows)
    calls = serving.calls(served, by_split["held_out"])
    calls[-1].expected["language"][0] = b"xx"
    with pytest.raises(ExportError, match="output 'language'"):
        export_endpoints(served, serving.endpoints(served), serving.contract(), tmp_path / "language" / "1", calls)
    assert not (tmp_path / "language").exists()


def test_facts_alone_are_summed_within_the_text(tmp_path, by_split, small_lists):
    known = vocabulary.vocabulary(6)
    rows = look_up(
        [data.Text("der und haus", "de", "de", "training")], lookup.WordRows(known.words, tmp_path / "w.txt")
    )
    assert [LANGUAGES[i] for i in evaluation.by_facts(known)(rows)] == ["de"]
