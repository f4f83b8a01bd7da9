"""Real trainings that diverge: what is stored of them, and that a search leaves the region where they do."""

import pytest
from searches import Watch, file_of, search_in

from face3d_tune.storage.database import Storage
from face3d_tune.study.causes import count_causes

# In float32 a step of 1e20 leaves no finite number; half of the space, and more, is like that.
WILD = """
[sampler]
name = "tpe"
n_startup_trials = 4
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-5, high = 1e35, scale = "log" }
"""


@pytest.fixture(scope="module")
def wild(tmp_path_factory, data):
    """A search over rates that lead to NaN in every second trial, and what its watcher saw."""
    folder = tmp_path_factory.mktemp("wild")
    with Storage.parse(f"sqlite:///{(folder / 'studies.db').as_posix()}").opened(create=True) as opened:
        search, watch = search_in(opened, file_of(folder, WILD), data, epochs=1), Watch()
        search.run(10, watch)
        yield search, watch


def test_trials_that_diverge_fail_with_that_cause_and_do_not_count(wild):
    search, watch = wild
    causes = count_causes(search.study.trials)
    assert causes["diverged"] >= 1
    assert (causes["out_of_memory"], causes["error"]) == (0, 0)
    assert search.finished() == 10
    assert len(watch.ended) == 10 + causes["diverged"]
    worst = min(trial.params["lr"] for trial in search.study.trials if trial.state.name == "FAIL")
    assert worst > 1e3


def test_once_the_start_up_is_over_hardly_any_trial_is_asked_for_where_they_diverge(wild):
    search, _ = wild
    finished, after = 0, []
    for trial in search.study.trials:
        if finished >= 4:
            after.append(trial.state.name == "FAIL")
        finished += trial.state.name == "COMPLETE"
    before = [trial.state.name for trial in search.study.trials][: -len(after)]
    assert before.count("FAIL") / len(before) > 0.3
    assert sum(after) / len(after) < 0.3
