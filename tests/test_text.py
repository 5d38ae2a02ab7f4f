"""Reviews as words, words as numbers, data sets made of them.  No real data is needed."""

import doctest
import hashlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from ijrlib import config, datasets, networks, text

SEED = 3
REVIEWS = [["b", "a", "c"], ["a", "b"], ["a", "d", "c", "e", "a"]]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder that IJR_DATA names."""
    datasets._read_reviews.cache_clear()
    monkeypatch.setenv("IJR_DATA", str(tmp_path))
    return tmp_path


def write(folder, texts, labels, split="train", **columns):
    (folder / "imdb").mkdir(exist_ok=True)
    table = pa.table({"text": texts, "label": labels, **columns})
    parquet.write_table(table, folder / "imdb" / f"{split}.parquet")


def test_the_documented_tokenizer_does_what_its_example_says():
    found = doctest.testmod(text)
    assert found.attempted > 0
    assert found.failed == 0


def test_words_are_made_small_and_parted_by_all_that_is_no_letter_digit_or_apostrophe():
    assert text.words("Don't PANIC!<br />42 — café/bar_2") == [
        "don't",
        "panic",
        "42",
        "caf",
        "bar",
        "2",
    ]


def test_the_vocabulary_has_the_most_frequent_words_first_and_ties_by_the_alphabet():
    # a: 4; b, c: 2; d, e: 1
    assert text.vocabulary(REVIEWS) == {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6}
    assert text.vocabulary(REVIEWS, 5) == {"a": 2, "b": 3, "c": 4}


def test_endings_are_filled_up_in_front_and_have_one_number_for_all_unknown_words():
    numbers = text.vocabulary(REVIEWS, 5)
    expected = [[3, 2, 4], [0, 2, 3], [4, 1, 2]]
    assert text.endings(REVIEWS, numbers, 3).tolist() == expected
    assert text.endings([[]], numbers, 2).tolist() == [[0, 0]]


def test_windows_cut_each_review_into_words_and_the_next_one():
    numbers = text.vocabulary(REVIEWS)
    x, y = text.windows(REVIEWS, numbers, 1)
    assert x.tolist() == [[3], [2], [2], [4]]
    assert y.tolist() == [2, 3, 5, 6]
    x, y = text.windows(REVIEWS, numbers, 5)  # none is six words long
    assert x.shape == (0, 5)
    assert y.shape == (0,)


def test_the_invented_reviews_are_the_same_every_time_and_can_be_told_apart():
    texts, labels = text.invented("train")
    assert (texts, labels) == text.invented("train")
    assert len(texts) == text.INVENTED["train"]
    assert set(labels) == {0, 1}
    assert set(texts).isdisjoint(text.invented("test")[0])
    favourable = [sum(word in text.JUDGEMENTS[1] for word in text.words(t)) for t in texts]
    judged = [sum(word in sum(text.JUDGEMENTS, ()) for word in text.words(t)) for t in texts]
    guesses = np.array(favourable) > np.array(judged) / 2
    assert 0.8 < (guesses == np.array(labels)).mean() < 1


@pytest.mark.parametrize(
    ("split", "sum_"),
    [
        ("train", "529e27d8c4c1aa88194df7bf904bcba13aa9117ec9253e2e512ee6c313f2d53a"),
        ("test", "5048047c36608a98cec045b9c766a3da76393061c458ef4d996d6b4be8f98a98"),
    ],
)
def test_the_invented_reviews_are_the_same_in_every_process(split, sum_):
    texts, labels = text.invented(split)
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == sum_
    assert labels == [0, 1] * (len(texts) // 2)


# --- as data sets --------------------------------------------------------------------------------


def test_reviews_come_shuffled_with_a_seed_and_numbered_by_the_training_split(folder):
    write(folder, ["good good film", "bad film", "good"], [1, 0, 1])
    write(folder, ["bad good unheard"], [0], "test")
    few = datasets.load("imdb", 2, (2,), 2, SEED)
    many = datasets.load("imdb", 3, (2,), 2, SEED)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(SEED))
    # good: 3, film: 2, bad: 1
    expected = torch.tensor([[2, 3], [4, 3], [0, 2]])[order]
    assert torch.equal(many.x, expected)
    assert torch.equal(many.y, torch.tensor([1, 0, 1])[order])
    assert torch.equal(few.x, many.x[:2])
    assert torch.equal(few.y, many.y[:2])
    test = datasets.load("imdb", 1, (4,), 2, SEED, "test")
    assert test.x.tolist() == [[0, 4, 2, 1]]
    assert test.x.dtype == test.y.dtype == torch.int64


def test_a_language_model_has_the_next_word_as_the_label_and_as_many_words_as_classes(folder):
    write(folder, ["a a a b b c d", "a b c"], [0, 1])
    data = datasets.load("imdb", 3, (2,), 4, SEED)
    # a: 4, b: 3, beyond: 1; pieces "a a a", "b b c" and "a b c"
    pieces = {(2, 2, 2), (3, 3, 1), (2, 3, 1)}
    assert {(*x, y) for x, y in zip(data.x.tolist(), data.y.tolist(), strict=True)} == pieces
    assert "next one as the label" in data.source["note"]


def test_a_test_split_has_words_labels_and_provenance_of_its_own(folder):
    write(folder, ["a a a b b c d", "a b c"], [0, 0])
    write(folder, ["b a c", "c"], [1, 1], "test")
    model = datasets.load("imdb", 1, (2,), 4, SEED, "test")
    # a: 2, b: 3, beyond: 1
    assert (model.x.tolist(), model.y.tolist()) == ([[3, 2]], [1])
    favourable = datasets.load("imdb", 2, (1,), 2, SEED, "test")
    assert favourable.y.tolist() == [1, 1]
    content = (folder / "imdb" / "test.parquet").read_bytes()
    for data in (model, favourable):
        assert data.source["source"] == "imdb/test.parquet"
        assert data.source["sha256"] == hashlib.sha256(content).hexdigest()


def test_provenance_names_the_file_and_what_was_done(folder):
    write(folder, ["good film"], [1])
    source = datasets.load("imdb", 1, (80,), 2, SEED).source
    assert source["source"] == "imdb/train.parquet"
    assert "last 80 words" in source["note"]
    assert "20000 words" in source["note"]
    assert source["sha256"] == datasets._sha256([folder / "imdb" / "train.parquet"])


def test_missing_reviews_say_where_they_were_sought(folder):
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("imdb", 1, (80,), 2, SEED)
    assert str(folder / "imdb" / "train.parquet") in str(error.value)
    assert "IJR_DATA" in str(error.value)


def test_a_damaged_file_and_one_without_the_columns_are_refused(folder):
    write(folder, ["good film"] * 50, [1] * 50)
    path = folder / "imdb" / "train.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(datasets.DamagedData, match=r"Parquet file of texts"):
        datasets.load("imdb", 1, (80,), 2, SEED)
    parquet.write_table(pa.table({"review": ["good"], "label": [1]}), path)
    with pytest.raises(ValueError, match=r"columns text and label in .*got review, label"):
        datasets.load("imdb", 1, (80,), 2, SEED)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["good", None], [0, 1], "expected the column text .*got string with 1 gaps"),
        ([1, 2], [0, 1], "expected the column text of type string.*got int64"),
        (["good", "bad"], ["pos", "neg"], "expected the column label of type int.*got string"),
        (["good", "bad"], [0, -1], "expected labels from 0 to 1 in .*got -1 to 0"),
    ],
)
def test_texts_and_labels_that_are_others_are_refused_with_the_file(folder, texts, labels, message):
    write(folder, texts, labels)
    with pytest.raises(datasets.DamagedData, match=message) as error:
        datasets.load("imdb", 2, (80,), 2, SEED)
    assert "imdb/train.parquet" in str(error.value) and str(folder) in str(error.value)


def test_a_language_model_needs_no_labels(folder):
    write(folder, ["a a b"], [-1])  # as in Hugging Face's split without labels
    assert datasets.load("imdb", 1, (2,), 4, SEED).y.tolist() == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, (3, 32, 32), 2), r"made of words.*\(T,\).*\(3, 32, 32\)"),
        ((5, (0,), 2), r"made of words.*T ≥ 1.*\(0,\)"),
        ((5, (80,), 1), r"2 classes.*got 1"),
        ((401, (80,), 2), r"400 examples.*401"),
        ((0, (80,), 2), r"400 examples.*0"),
    ],
)
def test_what_texts_cannot_give_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("invented", *arguments, SEED)


def test_words_have_no_scale():
    with pytest.raises(ValueError, match=r"no scale.*unit"):
        datasets.load("invented", 5, (80,), 2, SEED, inputs="unit")


@pytest.mark.parametrize("fields", [{"augment": True}, {"inputs": "unit"}])
def test_a_configuration_with_words_refuses_what_is_for_images(fields):
    with pytest.raises(ValueError, match=r"dataset: expected neither augment nor inputs"):
        config.RunConfig("invented", 20, "lstm", 0.1, 3, probe=10, **fields)


def test_the_configuration_knows_which_data_sets_are_made_of_words():
    assert config.TEXTS == datasets.TEXTS


# --- the networks that read them -----------------------------------------------------------------


def test_the_lstm_is_pytorchs_own():
    """The formulas against torch.nn.LSTM with the same numbers, in double precision."""
    ours = networks.build("lstm", dtype=torch.float64)
    theirs = torch.nn.LSTM(128, 100, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.inputs.weight)
        theirs.weight_hh_l0.copy_(ours.recurrent.weight)
        theirs.bias_ih_l0.copy_(ours.inputs.bias)
        theirs.bias_hh_l0.zero_()
    x = torch.randint(text.VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(0))
    last = theirs(ours.embedding(x))[0][:, -1]
    assert torch.allclose(ours(x), ours.head(last), rtol=0, atol=1e-13)


def test_the_text_network_takes_the_largest_output_over_three_words_anywhere():
    network = networks.build("text_cnn", dtype=torch.float64)
    x = torch.randint(2, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    kernel, bias = network.convolution.weight, network.convolution.bias
    words = network.embedding(x)
    positions = [torch.einsum("nwe,few->nf", words[:, k : k + 3], kernel) + bias for k in range(7)]
    pooled = torch.stack(positions).relu().amax(0)
    expected = network.head(network.hidden(pooled).relu())
    assert torch.allclose(network(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("network", [networks.LSTM, networks.TextCNN])
def test_a_word_beyond_a_networks_vocabulary_is_an_unknown_one(network):
    model = network(vocabulary=50)
    x = torch.randint(2, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    beyond, unknown = x.clone(), x.clone()
    beyond[0, 4], unknown[0, 4] = 50, text.UNKNOWN
    assert torch.equal(model(beyond), model(unknown))
    assert not torch.equal(model(beyond), model(x))
