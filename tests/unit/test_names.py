"""Names of studies that look the same, and names that no study can have."""

import unicodedata

import pytest
from command_line import call
from stored_study import our_study

from face3d_tune.errors import StudyError
from face3d_tune.storage.database import Storage
from face3d_tune.storage.study_names import alike, existing_name, name_to_search, study_names

COMPOSED = unicodedata.normalize("NFC", "étude 研究")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def place(sqlite_url):
    return Storage.parse(sqlite_url)


def make(place, *names):
    with place.opened(create=True) as storage:
        for name in names:
            our_study(storage, name)


@pytest.mark.parametrize("stored", [COMPOSED, DECOMPOSED, f"{COMPOSED} "])
@pytest.mark.parametrize("typed", [COMPOSED, DECOMPOSED, f"  {DECOMPOSED} ", f"{COMPOSED}\r"])
def test_a_study_is_found_by_a_name_that_looks_the_same(place, stored, typed):
    make(place, stored, "another")
    assert COMPOSED != DECOMPOSED
    with place.opened() as storage:
        assert existing_name(storage, typed) == stored
    assert name_to_search(place, typed) == stored  # `run` goes on with it and makes no second one


def test_the_very_name_comes_first_and_without_it_two_that_look_the_same_are_named():
    both = [COMPOSED, DECOMPOSED]
    assert [alike(name, both) for name in both] == both
    with pytest.raises(StudyError, match="which study") as caught:
        alike(f"{COMPOSED} ", both)
    assert caught.value.hint == f"they are {COMPOSED!a}, {DECOMPOSED!a}"  # or they would look the same
    assert alike("another", both) is None


def test_a_new_study_has_its_name_in_the_usual_form(place):
    assert name_to_search(place, f" {DECOMPOSED} ") == COMPOSED


@pytest.mark.parametrize("name", ["  ", "a\nb", "a\x1b[2Jb", "\udcff", "n" * 201])
def test_a_name_that_no_line_can_show_is_refused_before_anything_is_stored(place, name):
    with pytest.raises(StudyError, match="expected 1 to 200"):
        name_to_search(place, name)
    assert not place.sqlite_file.exists()
    assert name_to_search(place, "n" * 200) == "n" * 200


def test_run_continues_the_study_whose_name_looks_the_same(tmp_path, data_folder, quick_study):
    words = ("run", "--study", quick_study, "--data-dir", data_folder, "--epochs", "1", "--artifacts", "none")
    for name, said in ((COMPOSED, "1 of 1 trials finished"), (f"{DECOMPOSED} ", f"nothing to do: study {COMPOSED!r}")):
        answer = call(*words, "--trials", 1, "--study-name", name, cwd=tmp_path)
        assert answer.code == 0, answer.err
        assert said in answer.out + answer.err
    with Storage.parse(f"sqlite:///{tmp_path / 'face3d_tune.db'}").opened() as storage:
        assert study_names(storage) == [COMPOSED]
    follow = call(*words, "--trials", 1, "--study-name", "next", "--from", DECOMPOSED, cwd=tmp_path)
    assert follow.code == 0, follow.err
    assert f"from     {COMPOSED}, trial" in follow.err


def test_a_name_of_a_megabyte_leaves_a_message_of_a_line(place, tmp_path):
    make(place, "s" * 2**20)
    name, storage = "n" * 10**5, f"sqlite:///{place.sqlite_file}"  # no system lets anybody type a longer word
    for words in (("export", "--study-name"), ("export", "--debug", "--study-name"), ("run", "--study")):
        answer = call(*words, name, "--storage", storage, cwd=tmp_path)
        assert answer.code == 2
        assert len(answer.err) < 20_000
        assert max(map(len, answer.err.splitlines())) < 2000
    for words in (("status", "--storage", f"sqlite:///{name}"), ("data", "check", name), ("run", "--data-dir", name)):
        answer = call(*words, cwd=tmp_path)
        assert (answer.code, "unexpected" in answer.err, len(answer.err) < 2000) == (2, False, True), answer.err[:300]
