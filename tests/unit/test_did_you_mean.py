"""What a message suggests for a mistyped word."""

import pytest

from face3d_tune.errors import did_you_mean, near_miss


@pytest.mark.parametrize(
    ("word", "expected"), [("drouput", "dropout"), ("lr", "lr"), ("batch_sise", "batch_size"), ("xyz", None)]
)
def test_the_closest_known_word_is_meant(word, expected):
    assert near_miss(word, iter(("dropout", "lr", "batch_size"))) == expected


def test_a_message_ends_with_the_question_or_as_it_was():
    assert did_you_mean("rnu", ["run", "report"]) == "; did you mean 'run'?"
    assert did_you_mean("xyz", ["run", "report"]) == ""
