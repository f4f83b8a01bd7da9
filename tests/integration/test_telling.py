"""A search tells of its new bests and of its end, whatever ends it, and nothing of a token is printed or stored."""

import json
import signal
import threading

import optuna
import pytest
from command_line import call
from searches import SAMPLED_ONLY, Scripted, Watch, file_of, search_in
from stored_study import trial_of
from test_script_search import SCRIPT, STUDY, stored
from webhook import PATIENCE, Server

from face3d_tune.errors import StorageAwayError, TrainingError
from face3d_tune.executor.tasks import Failure
from face3d_tune.search import telling
from face3d_tune.search.search_options import MessageOptions
from face3d_tune.search.stop import request_stop
from face3d_tune.storage.database import Storage

TOKEN = "t0ken1234secret"


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    """A script that also prints its environment, of whose presets one is beaten."""
    (tmp_path / "train.py").write_text(f"{SCRIPT}\nimport os\nprint(dict(os.environ))\n", encoding="utf-8")
    study = STUDY.replace("sharp = [false, true]", "").replace("low = 0.01, high = 1.0", "low = 0.1, high = 0.5")
    (tmp_path / "mine.toml").write_text(study, encoding="utf-8")
    return tmp_path


def run(folder, *words, **environment):
    words = ("run", "--study", "mine.toml", "--slots", 1, *words)
    return call(*words, cwd=folder, FACE3D_TUNE_ARTIFACTS=str(folder / "kept"), **environment)


def on_end(folder, command="env"):
    return ("--on-end", f"{command} > {folder / 'ended'}")


def facts(folder):
    lines = (folder / "ended").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line.startswith("FACE3D_TUNE_"))


def test_a_search_tells_of_each_new_best_and_of_its_end_and_shows_and_stores_no_token(folder, server):
    answer = run(folder, *on_end(folder), FACE3D_TUNE_NOTIFY=f"{server.url(TOKEN)} {server.url(f'fails/{TOKEN}')}")
    assert answer.code == 0, answer.err
    _, trials, _, _ = stored(folder)
    values = [trial.value for trial in trials]
    bests = [number for number in range(1, 4) if values[number] < min(values[:number])]
    assert bests, "the presets are beaten"
    messages = [got for path, got in server.got if path == f"/{TOKEN}"]
    assert [got["title"] for got in messages] == [
        *["face3d-tune: new best trial of study 'mine'"] * len(bests),
        "face3d-tune: the search of study 'mine' ended",
    ]
    for got, number in zip(messages, [*bests, bests[-1]], strict=True):
        assert (
            f"best val_loss {values[number]:.4f}, trial {number}, {values[number] - values[0]:.4f} on defaults"
            in got["message"]
        )
    assert "ended: all 4 trials of the budget are finished" in messages[-1]["message"]
    assert answer.err.count("--notify json://*** failed: ") == 1
    found = facts(folder)
    assert (found["FACE3D_TUNE_END_RESULT"], found["FACE3D_TUNE_END_EXIT_CODE"]) == ("budget", "0")
    assert float(found["FACE3D_TUNE_END_VALUE"]) == min(values)
    logs = [path for path in (folder / "kept").rglob("*") if path.is_file()]
    assert any("FACE3D_TUNE_TRIAL" in path.read_text(encoding="utf-8", errors="replace") for path in logs)
    for path in (*logs, folder / "face3d_tune.db", folder / "ended"):
        assert TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in answer.out + answer.err


def test_with_json_the_output_stays_json_and_the_failure_is_a_note(folder, server):
    command = ("--on-end", "echo this is no JSON")
    answer = run(folder, "--json", "--trials", 1, "--notify", server.url(f"fails/{TOKEN}"), *command)
    assert answer.code == 0
    assert json.loads(answer.out.splitlines()[-1])["event"] == "finished"
    assert TOKEN not in answer.out + answer.err
    assert "warning: --notify json://*** failed" in answer.err


def test_a_failure_that_stops_the_search_is_told_with_its_exit_code(folder, server):
    flags = SCRIPT.partition("for epoch")[0]
    (folder / "train.py").write_text(f"{flags}\nraise SystemExit('no data here')\n", encoding="utf-8")
    answer = run(folder, "--notify", server.url(TOKEN), *on_end(folder))
    assert answer.code == 1
    ((_, got),) = server.got
    assert got["title"] == "face3d-tune: the search of study 'mine' failed"
    assert got["type"] == "failure"
    assert got["message"].startswith("error: 5 trials in a row failed; the last: ")
    found = facts(folder)
    assert (found["FACE3D_TUNE_END_RESULT"], found["FACE3D_TUNE_END_EXIT_CODE"]) == ("failed", "1")
    assert found["FACE3D_TUNE_END_WHY"].startswith("5 trials in a row failed")
    assert found["FACE3D_TUNE_END_VALUE"] == ""


def test_a_search_with_nothing_to_do_tells_nothing(folder, server):
    assert run(folder, "--trials", 1).code == 0
    assert run(folder, "--trials", 1, "--notify", server.url(), *on_end(folder)).code == 0
    assert (server.got, (folder / "ended").exists()) == ([], False)


class Told:
    """In place of a `Notifier`: keeps the messages."""

    def __init__(self, urls, note):
        self.messages = []

    def tell(self, message):
        self.messages.append(message)

    def close(self):
        pass


@pytest.fixture
def search_told(monkeypatch):
    """Search in scripted slots, and return what was told, with the results that the command at the end got."""
    monkeypatch.setattr(telling, "Notifier", Told)
    ends = []
    monkeypatch.setattr(telling.on_end, "run", lambda command, ending, note: ends.append(ending))

    def run(search, url, slots, trials, watch=None, **options):
        told = telling.Telling(MessageOptions(("json://host",), "command"), print)
        try:
            with told.to_the_end(), told.during(search, Storage.parse(url)):
                search.run(trials, watch or Watch(), slots=slots, **options)
        finally:
            run.told, run.ends = told._notifier.messages, ends
        return run.told

    return run


def test_of_a_storage_that_went_away_nothing_more_is_read(sqlite, sqlite_url, tmp_path, data, search_told, monkeypatch):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data)
    monkeypatch.setattr(telling.BestSoFar, "of", lambda *_: pytest.fail("it would wait for the storage"))
    slots, watch = Scripted(1, lambda *_: (0.5,)), Watch((0, 1), StorageAwayError("it is away"))
    with pytest.raises(StorageAwayError):
        search_told(search, sqlite_url, slots, 2, watch)
    (ending,) = search_told.ends
    assert (ending.result, ending.code, ending.why, ending.standing) == ("failed", 1, "it is away", None)
    assert "the storage does not answer" in search_told.told[-1].lines


@pytest.mark.parametrize("how", ["target", "time", "interrupted", "failed", "stop", "budget"])
def test_the_end_says_what_ended_the_search(sqlite, sqlite_url, tmp_path, data, search_told, how):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, target=0.4 if how == "target" else None)
    watch, options, expected = Watch(), {"deadline": 0.0} if how == "time" else {}, ()

    def play(task, number):
        if how == "stop":
            request_stop(search.study, now=False, by="ann@pc")
            search.stop._pace._next -= 10  # as if a second had passed
            return (0.5,)
        return Failure("no data") if how == "failed" else (0.5, "finished")

    slots = Scripted(1, play)
    if how == "interrupted":
        watch.stopping, expected = (lambda: True), KeyboardInterrupt
    elif how == "failed":
        expected = TrainingError
    if expected:
        with pytest.raises(expected):
            search_told(search, sqlite_url, slots, 2, watch, **options)
    else:
        search_told(search, sqlite_url, slots, 2, watch, **options)
    (ending,) = search_told.ends
    codes = {"interrupted": 130, "failed": 1}
    assert (ending.result, ending.code) == (how, codes.get(how, 0))
    assert search_told.told[-1] == ending.message()
    words = {"target": "the target 0.4 is reached", "time": "its time is over", "interrupted": "interrupted"}
    words |= {"budget": "all 2 trials of the budget are finished", "stop": "stopped by ann@pc at "}
    assert ending.why.startswith(words.get(how, "5 trials in a row failed; the last: no data"))


@pytest.fixture
def ends(monkeypatch):
    """What the command at the end got; messages are kept by their notifier."""
    found = []
    monkeypatch.setattr(telling, "Notifier", Told)
    monkeypatch.setattr(telling.on_end, "run", lambda command, ending, note: found.append(ending))
    return found


def test_of_a_study_that_was_deleted_the_end_is_told_without_its_best(sqlite, sqlite_url, tmp_path, data, ends):
    search, notes = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data), []
    told = telling.Telling(MessageOptions(("json://host",), "command"), notes.append)

    def interrupted():
        optuna.delete_study(study_name="quick", storage=sqlite)
        search.told(trial_of("COMPLETE", 0.5))  # it ends no search
        assert [note.partition(": ")[0] for note in notes] == ["a new best could not be told"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), told.to_the_end(), told.during(search, Storage.parse(sqlite_url)):
        interrupted()
    (ending,) = ends
    assert (ending.result, ending.code, ending.standing) == ("interrupted", 130, None)
    assert "the storage does not answer" in told._notifier.messages[-1].lines


def test_ctrl_c_while_the_last_message_is_sent_leaves_the_command_its_turn(
    sqlite, sqlite_url, tmp_path, data, ends, monkeypatch
):
    search, notes = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data), []
    monkeypatch.setattr(Told, "close", lambda self: signal.raise_signal(signal.SIGINT))
    told = telling.Telling(MessageOptions(("json://host",), "command"), notes.append)
    with told.to_the_end(), told.during(search, Storage.parse(sqlite_url)):
        pass
    assert (len(ends), notes) == (1, ["the message on the end was interrupted"])


def test_a_command_needs_no_message_beside_it(sqlite, sqlite_url, tmp_path, data, ends):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data)
    told = telling.Telling(MessageOptions((), "command"), print)
    with told.to_the_end(), told.during(search, Storage.parse(sqlite_url)):
        search.run(1, Watch(), slots=Scripted(1, lambda *_: (0.5, "finished")))
    (ending,) = ends
    assert (ending.result, ending.standing.best) == ("budget", (0.5, 0))


def test_of_several_workers_the_one_that_stored_a_new_best_tells_it_and_each_tells_its_own_end(
    postgres_tables_url, tmp_path, data, search_told, monkeypatch
):
    url, value = postgres_tables_url, {}
    lock, told = threading.Lock(), []

    def play(task, number):
        with lock:  # each trial is better than the one before
            value.setdefault(task.number, 0.1 + 0.01 * len(value))
        return value[task.number], "finished"

    def work(opened):
        search = search_in(opened, file, data)
        told_here = telling.Telling(MessageOptions(("json://host",)), print)
        with told_here.to_the_end(), told_here.during(search, Storage.parse(url)):
            search.run(8, Watch(), slots=Scripted(1, play))
        told.append([message.title.partition(" of study")[0] for message in told_here._notifier.messages])
        best.extend(line for message in told_here._notifier.messages[:-1] for line in message.lines[:1])

    best = []
    with Storage.parse(url).opened() as one, Storage.parse(url).opened() as other:
        file = file_of(tmp_path, SAMPLED_ONLY)
        search_in(one, file, data)  # the study
        threads = [threading.Thread(target=work, args=(opened,)) for opened in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert [titles[-1] for titles in told] == ["face3d-tune: the search"] * 2
    assert len(best) == len(set(best)) <= 8, "no new best is told twice"
    assert sum("0.1700" in line for line in best) == 1, "the last of them is told"
