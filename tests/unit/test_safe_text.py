"""Text as it may be shown: where a URL's password stands, what is removed, and how long a message may be."""

import pytest

from face3d_tune.system import safe_text
from face3d_tune.system.safe_text import fits_a_line, learn, learn_url, masked, redact, safe, shorten, visible


@pytest.fixture(autouse=True)
def _nothing_known():
    safe_text.forget()
    yield
    safe_text.forget()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@ssw0rd@host/db", "postgresql://u:***@host/db"),
        ("postgresql://u:a:b/c?d@host:5432/db", "postgresql://u:***@host:5432/db"),
        ("postgresql://u:@host/db", "postgresql://u:***@host/db"),
        ("postgresql://u@host:5432/db", "postgresql://u@host:5432/db"),
        ("postgresql://u@[::1]:5432/db", "postgresql://u@[::1]:5432/db"),
        ("postgresql://u@host/db?sslmode=require", "postgresql://u@host/db?sslmode=require"),
        ("postgresql://u@host/db?sslmode=require&PassWord=x", "postgresql://u@host/db?***"),
        ("postgresql://u@host/db?password=a&b", "postgresql://u@host/db?***"),
        ("sqlite:///a:b@c.db", "sqlite:///a:***@c.db"),  # rather too little than too much
        ("no URL: x@y", "no URL: x@y"),
    ],
)
def test_of_a_url_nothing_between_the_first_colon_and_the_last_at_is_shown(url, shown):
    assert masked(url) == shown


def test_a_secret_is_removed_in_every_form_in_which_a_program_repeats_it():
    learn_url("postgresql://me:t%C3%A9%20st%22@host/db")
    for form in ('té st"', "t%C3%A9%20st%22", "t%C3%A9+st%22", "t%C3%A9 st%22"):
        assert redact(f"password={form}!") == "password=***!"
    learn("a\\b'c")
    assert redact(repr({"password": "a\\b'c"})) == "{'password': \"***\"}"


def test_a_secret_that_is_not_utf_8_is_removed():
    learn("lone \udcff")
    assert redact("password=lone \udcff!") == "password=***!"


def test_a_short_secret_is_removed_as_a_word_and_not_from_the_middle_of_others():
    learn("a")
    assert redact('password "a" of a cat') == 'password "***" of *** cat'


def test_a_password_that_equals_what_the_url_shows_anyway_is_no_reason_to_hide_that():
    learn_url("postgresql://me:me@host/db")
    assert redact('user "me"') == 'user "me"'


def test_a_url_that_nobody_typed_is_shown_without_its_password_too():
    text = 'Could not connect to the endpoint URL: "http://key:s3cret@minio:9000/bucket"'
    assert redact(text) == 'Could not connect to the endpoint URL: "http://key:***@minio:9000/bucket"'
    assert redact("use postgresql://USER:PASSWORD@HOST/NAME") == "use postgresql://USER:PASSWORD@HOST/NAME"


def test_a_name_of_a_megabyte_is_cut_and_what_stands_around_it_is_not():
    text = shorten(f"no study named '{'n' * 2**20}'; did you mean 'quick'?")
    assert text.startswith("no study named 'nnn")
    assert text.endswith("nnn'; did you mean 'quick'?")
    assert len(text) < 500
    assert len(shorten("a " * 2**20)) < 5000
    assert shorten(" ".join(["/a/path/of/ordinary/length.npy"] * 20)) == " ".join(
        ["/a/path/of/ordinary/length.npy"] * 20
    )


def test_a_text_of_several_lines_keeps_them():
    assert safe(f"one\n{'x' * 9999}\nthree").count("\n") == 2


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        ("a\nb\x1b[0m\x00\x7f\x9b", r"a\nb\x1b[0m\x00\x7f\x9b"),
        ("\u202ea\u2028\u2066", r"\u202ea\u2028\u2066"),
        ("结果\u3000é\u00a0👩\u200d🔬 ab", "结果\u3000é\u00a0👩\u200d🔬 ab"),
    ],
)
def test_what_no_line_can_show_is_written_as_python_does_and_letters_stay(held, shown):
    assert visible(held) == shown
    assert visible("a\nb\t", keep="\n\t") == "a\nb\t"
    assert fits_a_line(held) == (held == shown)
