"""A worker that is killed, at whatever moment, costs the search nothing but time."""

import os

import doomed
import optuna
import pytest
from command_line import call
from doomed import MOMENTS
from optuna.trial import TrialState

from face3d_tune.storage.database import Storage
from face3d_tune.study.trials import REQUEUED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")

TOLD = ("after tell", "before its weights are kept")
NEVER = "while it is taken"  # what such a transaction did is undone
TRIALS = 3  # a preset and two that are sampled
BEGINNING = (NEVER, "after the claim", "before the first report")  # which differs between the two
STUDY = """
[study]
presets = []
[budget]
epochs = 2
[sampler]
name = "random"
[fixed]
batch_size = 20
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-5, high = 3e-3, scale = "log" }
dropout = { low = 0.0, high = 0.5 }
scheduler_min_lr = { low = 1e-8, high = 1e-5, scale = "log" }
[presets.first]
lr = 3e-3
dropout = 0.2
"""


def words(folder, data_folder, url, trials=TRIALS):
    path = folder / "quick.toml"
    path.write_text(STUDY, encoding="utf-8")
    run = ("run", "--study", path, "--data-dir", data_folder, "--storage", url, "--device", "cpu", "--slots", 1)
    return (*run, "--trials", trials, "--worker-timeout", "1s", "--artifacts", folder / "artifacts")


def trials_of(url):
    with Storage.parse(url).opened() as opened:
        return optuna.load_study(study_name="quick", storage=opened).trials


def found(trials):
    """What the first trial found, its successors or itself, then the second."""
    finished = sorted((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: t.user_attrs["ordinal"])
    return [(t.params, t.user_attrs["seed"], t.value) for t in finished]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_folder):
    folder = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{folder / 'studies.db'}"
    assert call(*words(folder, data_folder, url), cwd=folder).code == 0
    return found(trials_of(url))


OWNERSHIP = (  # when who has a trial changes, which a server decides otherwise than a file
    NEVER,
    "after the claim",
    "between report and tell",
    "while its end is stored",
)


@pytest.mark.parametrize(
    ("storage_url", "moment"),
    [*(("sqlite", moment) for moment in MOMENTS), *(("postgres", moment) for moment in OWNERSHIP)],
    indirect=["storage_url"],
)
def test_a_search_killed_at_any_moment_ends_as_if_nothing_had_been(
    tmp_path, data_folder, undisturbed, storage_url, moment
):
    total = TRIALS if moment in TOLD else 2
    run = words(tmp_path, data_folder, storage_url, total)
    server = storage_url.startswith("postgresql")
    preset = moment in (*TOLD, *BEGINNING) or server
    if preset:
        assert doomed.run(*run, moment=moment, trial=0) == -9
        if server:
            doomed.long_silent(storage_url)
    assert doomed.run(*run, moment=moment, trial=0 if moment in TOLD else 1) == -9  # a sampled one
    if server:
        doomed.long_silent(storage_url)
    rest = call(*run, cwd=tmp_path)
    assert rest.code == 0, rest.err
    trials = trials_of(storage_url)
    assert found(trials) == undisturbed[:total]
    left = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    assert all(trial.state == TrialState.FAIL and REQUEUED in trial.user_attrs for trial in left)
    assert len(left) == (0 if moment in (*TOLD, NEVER) else 1 + preset)
    kept = sorted(path.name for path in (tmp_path / "artifacts").rglob("*") if path.is_file())
    assert [name for name in kept if not name.endswith(".partial")] == sorted(
        f"trial-{trial.number}.pth" for trial in trials if trial.state == TrialState.COMPLETE
    )
