"""`run --trial-timeout`: a script that hangs is ended, tried once again, and fails; nothing else is lost."""

import os

import pytest
from command_line import call, environment
from forked import Run
from script_searches import PATIENCE, Place, check_nothing_left, found, notice_hangs, study_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")

HUNG = "it gave no epoch for 30 s (--trial-timeout), so its process was ended"


def words(place, url):
    return place.words(url, "--trials", 2, "--trial-timeout", "30s", slots=1)


def test_a_script_that_hangs_in_its_second_epoch_is_tried_once_again_and_the_search_goes_on(
    tmp_path, sqlite_url, monkeypatch
):
    place = Place(tmp_path / "place")
    notice_hangs(place.seen, patch=monkeypatch.setattr)
    place.hold(0, 1)
    answer = call(*words(place, sqlite_url), cwd=tmp_path)
    assert answer.code == 0, answer.err
    attrs, trials = study_of(sqlite_url)
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.user_attrs["error"] for trial in trials[:2]] == [
        HUNG,
        f"{HUNG}; it hung before, and was tried once again",
    ]
    assert (trials[1].user_attrs["cause"], trials[1].user_attrs["epochs_run"]) == ("timeout", 1)
    assert place.begun() == [0, 1, 0, 0]
    assert f"error: {HUNG}; queued again" in answer.err
    assert "failed: 1 timed out" in answer.err
    check_nothing_left(attrs["id"])
    shown = call("status", "--storage", sqlite_url, cwd=tmp_path).out
    assert "1 timed out, 1 queued again" in shown


def test_of_two_workers_one_tries_again_what_hung_at_the_other_and_finds_the_same(tmp_path, postgres_tables_url):
    undisturbed = Place(tmp_path / "undisturbed", name="quiet")
    url = f"sqlite:///{undisturbed.folder / 'studies.db'}"
    assert call(*words(undisturbed, url), cwd=tmp_path).code == 0
    place = Place(tmp_path / "place")
    place.hold(0, 1)

    def worker():
        first = ("script_searches", "notice_hangs", {"seen": str(place.seen), "once": True})
        return Run(words(place, postgres_tables_url), cwd=tmp_path, env=environment(), first=first)

    with worker() as one, worker() as other:
        for each in (one, other):
            _, err = each.communicate(timeout=PATIENCE)
            assert each.returncode == 0, err
    attrs, trials = study_of(postgres_tables_url)
    check_nothing_left(attrs["id"])
    assert found(trials) == found(study_of(url, "quiet")[1])
    (hung,) = [trial for trial in trials if trial.state.name == "FAIL"]
    assert hung.user_attrs["error"] == HUNG
    assert [trial.user_attrs["timeouts"] for trial in trials if trial.user_attrs.get("retry_of") == hung.number] == [1]
    assert "overlaps" not in {line[2] for line in place.told()}
