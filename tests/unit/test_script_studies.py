"""Studies of a user's own script are copied exactly, and `status` shows how they were confirmed."""

import json

from command_line import call
from own_script import found_of
from stored import everything
from stored_script import searched_script, study_of_script

from face3d_tune.storage.database import Storage


def store(url, **attrs):
    with Storage.parse(url).opened(create=True) as storage:
        study_of_script(*searched_script(), storage=storage, **attrs)


def test_a_copy_has_the_script_its_numbers_and_its_confirmation(tmp_path):
    here, there = (f"sqlite:///{(tmp_path / name).as_posix()}" for name in ("here.db", "there.db"))
    store(here, script_confirmation=found_of())
    answer = call("copy", here, there, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "copied study triplet: 17 trials" in answer.out
    assert everything(there, "triplet") == everything(here, "triplet")


def test_status_shows_the_headline_of_the_confirmation_in_both_languages(tmp_path, sqlite_url):
    store(sqlite_url, script_confirmation=found_of())
    english = call("status", "--storage", sqlite_url, cwd=tmp_path)
    assert english.code == 0, english.err
    assert "trained again: trial 12 is better than defaults: val_cos +0.0800 (+0.0500 to +0.1100)" in english.out
    chinese = call("status", "--storage", sqlite_url, "--lang", "zh", cwd=tmp_path)
    assert "再次训练：trial 12 好于 defaults：val_cos +0.0800（+0.0500 至 +0.1100），5 个种子。" in chinese.out
    (study,) = json.loads(call("status", "--storage", sqlite_url, "--json", cwd=tmp_path).out)["studies"]
    assert study["script_confirmation"]["winner"] == "trial 12"
