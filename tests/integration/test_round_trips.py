"""How often a search asks its server and waits: where an answer takes half a second, that is the time of a search."""

import os

import optuna
import pytest
from command_line import call
from optuna.storages import RDBStorage, get_storage
from proxy import Proxy
from searches import RANDOM_ONLY, Scripted, Watch, file_of
from test_workers import worker_of

from face3d_tune.search.pruning import TrialReporter
from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.storage.database import Storage
from face3d_tune.storage.far_storage import FarStorage

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the server's socket is a file of Unix")


@pytest.fixture
def counted(monkeypatch):
    """Counts the round trips of each call of a method, by its name."""
    counts = {}

    def count(proxy, owner, name):
        method = getattr(owner, name)

        def measured(*arguments, **named):
            before = proxy.round_trips
            try:
                return method(*arguments, **named)
            finally:
                counts.setdefault(name, []).append(proxy.round_trips - before)

        monkeypatch.setattr(owner, name, measured)

    count.counts = counts
    return count


def test_the_round_trips_of_ask_report_and_tell(postgres_tables_url, tmp_path, data, counted, near_server):
    """A heartbeat in between would count too; none is due so soon."""
    with Proxy(postgres_tables_url) as proxy:
        for owner, name in (
            (TrialQueue, "ask"),
            (TrialQueue, "tell"),
            (TrialReporter, "report"),
            (TrialReporter, "should_prune"),
        ):
            counted(proxy, owner, name)
        with worker_of(proxy.url, file_of(tmp_path, RANDOM_ONLY), data, silence=3600.0) as search:
            search.run(3, Watch(), slots=Scripted(1, lambda task, number: (0.1, "finished" if number == 5 else None)))
    counts = counted.counts
    epochs = [report + prune for report, prune in zip(counts["report"], [*counts["should_prune"], 0] * 3, strict=False)]
    assert max(epochs) <= 4
    assert max(counts["ask"]) <= 3
    assert max(counts["tell"]) <= 2


@pytest.mark.parametrize("tables", ["there", "missing"])
def test_the_round_trips_until_the_first_epoch(request, tmp_path, data_folder, monkeypatch, tables, far_server):
    """The server is named before it is asked. Where an answer takes 0.6 s, 20 of them are 12 s."""
    url = request.getfixturevalue("postgres_tables_url" if tables == "there" else "postgres_url")
    words = ("--data-dir", data_folder, "--trials", 1, "--epochs", 1, "--device", "cpu", "--slots", 1)
    words = (*words, "--worker-timeout", "1h")  # heartbeats would count
    begun = []
    with Proxy(url, delay=0.05) as proxy:
        started = TrialQueue.store

        def store(*arguments):
            started(*arguments)
            begun.append(proxy.round_trips)

        monkeypatch.setattr(TrialQueue, "store", store)
        ended = call(
            "run", "--study", file_of(tmp_path, RANDOM_ONLY).path, *words, "--storage", proxy.url, cwd=tmp_path
        )
        assert (ended.code, len(begun)) == (0, 1), ended.err
        assert ended.err.splitlines()[0] == f"connecting to {Storage.parse(proxy.url)}"
        assert begun[0] <= (22 if tables == "there" else 27)  # of which a second connection takes 3 beside the first
        proxy.delay = 0.0
        quiet = call("run", "--study", "quick.toml", *words, "--storage", proxy.url, "--quiet", cwd=tmp_path)
        assert (quiet.code, quiet.err) == (0, "")


def test_a_far_storage_reads_and_writes_what_optunas_own_does(postgres_tables_url):
    with Storage.parse(postgres_tables_url).opened() as far:
        assert type(far) is FarStorage
        study = optuna.create_study(study_name="名", storage=far, direction="maximize")
        study.set_user_attr("a", {"名": [1.5, None]})
        study.set_user_attr("a", {"名": [2.5, "%s :x"]})
        far.set_study_system_attr(study._study_id, "names", ["cosine"])
        study.enqueue_trial({"lr": 1e-7}, user_attrs={"preset": "one"})
        trial = study.ask()
        trial.suggest_float("lr", 1e-9, 1.0, log=True)
        trial.suggest_categorical("kind", ["x", None, 3])
        for step, value in enumerate([0.1 + 0.2, float("inf"), float("-inf"), float("nan"), 1e-300]):
            trial.report(value, step)
        study.tell(trial, float("inf"))
        study.ask()
        with pytest.raises(optuna.exceptions.DuplicatedStudyError):
            optuna.create_study(study_name="名", storage=far)
        for missing in (far.get_study_user_attrs, far.get_study_system_attrs, far.get_trial, far.get_all_trials):
            with pytest.raises(KeyError, match="Record does not exist"):
                missing(99)
        with pytest.raises(KeyError, match="Record does not exist"):
            far.set_study_user_attr(99, "a", 1)
        own = RDBStorage(Storage.parse(postgres_tables_url).url.render_as_string(hide_password=False))
        theirs = get_storage(own)
        (study_id,) = (known._study_id for known in own.get_all_studies())
        assert repr(far.get_all_trials(study_id)) == repr(own.get_all_trials(study_id))
        assert repr(get_storage(far).get_all_trials(study_id)) == repr(theirs.get_all_trials(study_id))
        assert repr(far.get_trial(trial._trial_id)) == repr(own.get_trial(trial._trial_id))
        assert far.get_study_user_attrs(study_id) == own.get_study_user_attrs(study_id) == {"a": {"名": [2.5, "%s :x"]}}
        assert far.get_study_system_attrs(study_id) == own.get_study_system_attrs(study_id)
        assert far.get_study_directions(study_id) == own.get_study_directions(study_id)
        own.remove_session()
        own.engine.dispose()


def test_a_request_that_arrives_after_another_worker_requeued_the_trial_queues_no_second_successor(postgres_tables_url):
    with Storage.parse(postgres_tables_url).opened() as far:
        study = optuna.create_study(study_name="late", storage=far)
        trial = study.ask()
        successor = {"lr": 1e-3}, {"retry_of": trial.number}
        for reason in ("in time", "held up on its way"):
            far.requeue(study._study_id, trial._trial_id, {"error": reason}, [successor])
        failed, queued = study.get_trials()
        assert (failed.state.name, failed.user_attrs) == ("FAIL", {"error": "in time"})
        assert failed.datetime_complete >= failed.datetime_start
        assert (queued.state.name, queued.user_attrs) == ("WAITING", {"retry_of": 0})
        assert study.ask().suggest_float("lr", 1e-5, 1.0) == 1e-3


def test_the_tables_of_a_new_server_are_those_that_optuna_makes(postgres_url, postgres_server):
    theirs = postgres_server.new_database()
    own = RDBStorage(Storage.parse(theirs).url.render_as_string(hide_password=False))
    own.remove_session()
    own.engine.dispose()
    with Storage.parse(postgres_url).opened(create=True):
        pass
    assert described(postgres_url) == described(theirs)


def described(url):
    """Tables, columns, keys, indexes, kinds and first rows of a database, without those of the workers."""
    questions = (
        "select table_name, column_name, data_type, udt_name, is_nullable, column_default, character_maximum_length "
        "from information_schema.columns where table_schema = 'public'",
        "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint "
        "where connamespace = 'public'::regnamespace",
        "select tablename, indexdef from pg_indexes where schemaname = 'public'",
        "select t.typname, e.enumlabel, e.enumsortorder from pg_enum e join pg_type t on t.oid = e.enumtypid",
        "select 'alembic_version', version_num from alembic_version",
        "select 'version_info', version_info_id, schema_version, library_version from version_info",
    )
    with Storage.parse(url).connected() as engine, engine.connect() as database:
        rows = [tuple(row) for each in questions for row in database.exec_driver_sql(each)]
    return sorted(map(repr, (row for row in rows if not str(row[0]).startswith("face3d_tune"))))
