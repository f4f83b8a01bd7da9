"""Earlier runs of the users' script become trials of a study, if what they claim holds on the study's people."""

import datetime
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from command_line import call
from conftest import QUICK_STUDY
from fake_data import write_data
from searches import SAMPLED_ONLY
from stand_in_parsers import OLD_SCRIPT, build_old
from users_repo import train, write_repo

from face3d_tune.data.convert import convert
from face3d_tune.storage.database import Storage
from face3d_tune.study.history import History

SIZES = ("--d_model", 16, "--dim_feedforward", 32, "--nhead", 2, "--num_layers", 1, "--batch_size", 8)
LATER = {"train_loss_history": 0.1, "val_loss_history": 0.9, "val_cosine_sim_history": 0.1}  # an epoch after the best
NO_SPLIT = ('SPLIT = "person"', 'SPLIT = "none"')

MEAN_OF_BATCHES = [
    (f"sum({value}.item() * n for {row} in scores) / pairs", f"sum({value}.item() for {row} in scores) / len(scores)")
    for value, row in (("loss", "loss, _, n"), ("cosine", "_, cosine, n"))
]


class Home:
    """A folder with data, earlier runs in `runs`, and study files."""

    def __init__(self, folder, data_folder):
        self.folder = folder
        shutil.copytree(data_folder, folder / "files")
        convert(folder / "files", folder / "files-radians", unit="radians")
        split, everyone = write_repo(folder / "repo"), write_repo(folder / "first", NO_SPLIT)
        batches = write_repo(folder / "other", *MEAN_OF_BATCHES)
        torch.manual_seed(1)
        self.printed = {
            "degrees": self._train(split, "degrees", "--epochs", 5),
            "radians": self._train(split, "radians", "--epochs", 5, "--lr", 1e-3, "--cosine_weight", 0.9),
            "everyone": self._train(everyone, "everyone", "--epochs", 5, "--lr", 3e-3),
            "batches": self._train(batches, "batches", "--epochs", 5, "--lr", 2e-3),
        }
        (folder / "quick.toml").write_text(QUICK_STUDY.replace("epochs = 2", "epochs = 9"), encoding="utf-8")
        (folder / "sampled.toml").write_text(SAMPLED_ONLY, encoding="utf-8")

    def _train(self, script, name, *words):
        data = self.folder / ("files-radians" if name == "radians" else "files")
        out = self.folder / "runs" / name
        return train(script, "--data_dir", data, *SIZES, *words, "--save_dir", out, "--log_dir", out)

    def run(self, name):
        return self.folder / "runs" / name / "best_model.pth"

    def held(self, name):
        return torch.load(self.run(name), weights_only=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory, data_folder):
    return Home(tmp_path_factory.mktemp("home"), data_folder)


def take(home, url, *words, study="quick.toml", data="files"):
    words = ("import", *words, "--storage", url, "--study", study, "--data-dir", data)
    return call(*words, cwd=home.folder)


def trials(url, name="quick"):
    with Storage.parse(url).opened() as storage:
        return optuna.load_study(study_name=name, storage=storage).get_trials()


def changed(home, tmp_path, name, **changes):
    """A copy of a run's file with other content; `args` are added to its own."""
    held = home.held(name)
    held["args"] |= changes.pop("args", {})
    torch.save({**held, **changes}, tmp_path / "best_model.pth")
    return tmp_path / "best_model.pth"


def test_a_run_becomes_a_completed_trial_with_its_flags_its_curve_and_what_its_weights_give(home, sqlite_url):
    answer = take(home, sqlite_url, home.run("degrees"), home.run("radians"))
    assert answer.code == 0, answer.err
    first, second = trials(sqlite_url)
    rates = [trial.user_attrs["recognition"]["all"]["rank1_enrolled"] for trial in (first, second)]
    assert re.findall(r" (\d\.\d{3}) +trial \d\b", answer.out, re.M) == [f"{rate:.3f}" for rate in rates]
    assert f"among {first.user_attrs['recognition']['enrolled']} enrolled" in answer.out
    for trial, name in ((first, "degrees"), (second, "radians")):
        held, attrs = home.held(name), trial.user_attrs
        assert trial.state == optuna.trial.TrialState.COMPLETE
        best = held["val_loss_history"].index(min(held["val_loss_history"]))
        assert trial.value == attrs["val_cosine"] == held["val_cosine_sim_history"][best]
        assert attrs["val_loss"] == min(held["val_loss_history"])
        assert attrs["gap"] == pytest.approx(attrs["val_loss"] - held["train_loss_history"][best])
        assert attrs["best_epoch"] == best + 1
        assert trial.intermediate_values == dict(enumerate(held["val_cosine_sim_history"], 1))
        history = History.of(trial)
        assert list(history.val_loss) == held["val_loss_history"]
        assert list(history.train_loss) == held["train_loss_history"]
        assert set(history.lr) == {held["args"]["lr"]}  # five epochs are too few for patience 5
        assert (attrs["origin"], attrs["confirmed"], attrs["lr_decays"]) == ("imported", True, 0)
        assert attrs["imported_from"] == str(home.run(name))
        assert not {"seed", "seconds", "worker", "preset"} & attrs.keys()
        # Of the six views two are in one band and four in the other.
        near, far = attrs["cosine_by_yaw"]["15-45"], attrs["cosine_by_yaw"]["45-90"]
        assert (2 * near + 4 * far) / 6 == pytest.approx(trial.value, abs=1e-5)
        assert attrs["recognition"]["all"]["cosine"] == pytest.approx(trial.value, abs=1e-5)
    # Its own weights are 0.5 and 0.5, so both losses are the same number.
    assert first.user_attrs["val_loss_equal"] == pytest.approx(first.user_attrs["val_loss"], abs=1e-6)
    assert (first.params["pose_unit"], second.params["pose_unit"]) == ("degrees", "radians")
    assert (second.params["lr"], second.params["cosine_weight"]) == (1e-3, 0.9)
    assert second.user_attrs["overrides"]["mse_weight"] == 0.5
    assert second.user_attrs["overrides"]["scheduler_min_lr"] == 0.0  # which a logarithmic range cannot hold
    assert "scheduler_min_lr" not in second.params


def test_a_run_of_this_program_is_one_as_well(home, sqlite_url, tmp_path):
    words = ("--data-dir", "files", "--preset", "recommended", "--epochs", 3, "--out", tmp_path / "out")
    trained = call("train", *words, cwd=home.folder)
    assert trained.code == 0, trained.err
    answer = take(home, sqlite_url, tmp_path / "out", study="default")
    assert answer.code == 0, answer.err
    (trial,) = trials(sqlite_url, "default")
    config = trial.user_attrs["config"]
    assert (config["lr"], config["early_stopping_patience"], config["use_mixed_precision"]) == (5e-5, 15, True)
    assert trial.user_attrs["best_epoch"] <= 3


def test_a_run_validated_on_its_training_pairs_is_refused_with_both_numbers(home, tmp_path):
    answer = take(home, "sqlite:///none.db", home.run("everyone"), home.run("degrees"), "--dry-run")
    assert answer.code == 1
    held = home.held("everyone")
    claim = held["val_cosine_sim_history"][held["val_loss_history"].index(min(held["val_loss_history"]))]
    refusals = [line for line in answer.out.splitlines() if line.startswith("refused: ")]
    assert len(refusals) == 1
    assert f"it says {claim:.4f}, and its weights give " in refusals[0]
    (near,) = re.findall(r"but ([\d.]+) on the pairs of those who train (?:or validate )?here", refusals[0])
    assert float(near) == pytest.approx(claim, abs=0.02)  # the test people, of whom it is silent, are in the claim
    assert "it was validated on the pairs that it trained on" in refusals[0]
    assert "error: 1 of 2 runs refused" in answer.err
    assert not (home.folder / "none.db").exists()


def test_it_is_taken_if_one_insists_and_then_decides_about_no_other_trial(home, sqlite_url):
    answer = take(home, sqlite_url, home.run("everyone"), "--unconfirmed")
    assert answer.code == 0, answer.err
    assert "warning: " in answer.out
    (trial,) = trials(sqlite_url)
    assert trial.user_attrs["confirmed"] is False
    assert trial.intermediate_values == {}  # what pruners compare with
    assert list(History.of(trial).cosine) == home.held("everyone")["val_cosine_sim_history"]


def test_it_is_never_the_best_trial(home, sqlite_url):
    take(home, sqlite_url, home.run("everyone"), "--unconfirmed")
    answer = call("export", "--storage", sqlite_url, cwd=home.folder)
    assert (answer.code, "has no completed trial yet" in answer.err) == (2, True)
    assert take(home, sqlite_url, home.run("degrees")).code == 0
    held = call("export", "--storage", sqlite_url, "--format", "json", cwd=home.folder)
    assert '"trial": 1,' in held.out


def test_in_a_study_without_a_split_it_is_what_it_says(home, sqlite_url):
    answer = take(home, sqlite_url, home.run("everyone"), "--split", "none")
    assert answer.code == 0, answer.err
    assert trials(sqlite_url)[0].user_attrs["confirmed"] is True
    refused = take(home, sqlite_url, home.run("degrees"), "--split", "none")  # validated on some of these only
    assert refused.code == 1


def test_a_claim_that_the_weights_do_not_keep_is_refused(home, sqlite_url, tmp_path):
    held = home.held("degrees")
    better = [cosine + 0.01 for cosine in held["val_cosine_sim_history"]]
    answer = take(home, sqlite_url, changed(home, tmp_path, "degrees", val_cosine_sim_history=better))
    assert answer.code == 1
    assert "it was made on other data" in answer.out


def test_a_script_may_average_over_batches_of_which_the_last_is_smaller(home, sqlite_url):
    answer = take(home, sqlite_url, home.run("batches"))
    assert answer.code == 0, answer.out
    (trial,) = trials(sqlite_url)
    near, far = trial.user_attrs["cosine_by_yaw"]["15-45"], trial.user_attrs["cosine_by_yaw"]["45-90"]
    assert abs((2 * near + 4 * far) / 6 - trial.value) > 0.003  # so pairs alone would not have confirmed it


def test_a_model_of_another_layout_is_refused(home):
    answer = take(home, "sqlite:///none.db", home.run("degrees"), "--layout", "pose", "--dry-run")
    assert "its model has the keypoint layout, the study's the pose layout" in answer.out


def test_runs_on_other_data_are_refused(home, sqlite_url, tmp_path):
    other = write_data(tmp_path / "other", seed=5)
    answer = take(home, sqlite_url, home.run("degrees"), data=other)
    assert answer.code == 1
    assert "it was made on other data" in answer.out


REASONS = {
    "another schedule": ({"args": {"scheduler_type": "cosine"}}, "scheduler_type = cosine; of a script only plateau"),
    "warm-up": ({"args": {"warmup_epochs": 10}}, "warmup_epochs = 10; how a script warms up is not known"),
    "a resumed run": ({"args": {"resume": "last.pth"}}, "resume = last.pth; a trial begins with new weights"),
    "a rate out of the space": ({"args": {"lr": 0.01}}, "lr = 0.01 is outside the search space, 1e-05 … 0.003"),
    "an unknown rate": ({"args": {"lr": None}}, "its args do not say lr"),
    "an impossible value": ({"args": {"dropout": 1.5}}, "dropout = 1.5 is out of range"),
    "other sizes": ({"args": {"num_layers": 2}}, "it is another model than its args say: num_layers = 1, not 2"),
    "later weights": (
        {
            "epoch": 5,
            **{f"{k}_history": [0.5, 0.4, 0.3, 0.35, 0.36, 0.37] for k in ("train_loss", "val_loss", "val_cosine_sim")},
        },
        "its weights are not those of its best epoch, 3",
    ),
}


@pytest.mark.parametrize("why", REASONS)
def test_what_no_trial_of_the_study_can_be_is_refused_by_name(home, tmp_path, why):
    changes, reason = REASONS[why]
    answer = take(home, "sqlite:///none.db", changed(home, tmp_path, "degrees", **changes), "--dry-run")
    assert answer.code == 1
    assert reason in answer.out


def test_a_run_that_peaked_after_the_studys_last_epoch_is_refused(home):
    assert home.held("degrees")["val_loss_history"][-1] == min(home.held("degrees")["val_loss_history"])
    answer = take(home, "sqlite:///none.db", home.run("degrees"), "--dry-run", "--epochs", 4)
    assert "its best epoch is 5; this study trains 4 at most" in answer.out


def test_a_run_that_was_cut_short_is_told_to_be(home):
    answer = take(home, "sqlite:///none.db", home.run("degrees"), "--dry-run")
    assert "it still improved when it ended, after 5 epochs; trials here train up to 9" in answer.out
    answer = take(home, "sqlite:///none.db", home.run("degrees"), "--dry-run", "--epochs", 5)
    assert "note: " not in answer.out


def test_flags_in_a_namespace_with_paths_and_dates_and_weights_of_a_wrapped_model_are_taken(home, sqlite_url, tmp_path):
    held = home.held("degrees")
    args = SimpleNamespace(**held["args"] | {"save_dir": Path("runs"), "started": datetime.date(2026, 11, 29)})
    wrapped = {f"module._orig_mod.{name}": weight for name, weight in held["model_state_dict"].items()}
    torch.save({**held, "args": args, "model_state_dict": wrapped}, tmp_path / "best_model.pth")
    answer = take(home, sqlite_url, tmp_path / "best_model.pth", home.run("degrees"))
    assert answer.code == 0, answer.out + answer.err
    (trial,) = trials(sqlite_url)  # the same run, so there is one
    assert trial.user_attrs["confirmed"] is True


def test_a_history_with_a_hole_is_refused_with_what_stands_there(home, tmp_path):
    losses = [*home.held("degrees")["val_loss_history"][:-1], None]
    answer = take(home, "sqlite:///none.db", changed(home, tmp_path, "degrees", val_loss_history=losses), "--dry-run")
    assert answer.code == 2
    assert "val_loss_history holds None for epoch 5; expected a finite number" in answer.err
    assert "hint: import another run: a trial needs every number of its curves" in answer.err


def test_a_folder_with_checkpoints_of_another_name_says_which(home, tmp_path):
    shutil.copyfile(home.run("degrees"), tmp_path / "last.pth")
    answer = take(home, "sqlite:///none.db", tmp_path, "--dry-run")
    assert f"error: {tmp_path} holds no best_model.pth" in answer.err
    assert f"hint: give a file of it by its name, such as {tmp_path / 'last.pth'}" in answer.err


def test_newer_copies_say_layers_in_another_way_and_old_ones_not_all_flags(home, sqlite_url, tmp_path):
    newer = {"num_decoder_layers": 1, "num_layers": None, "scheduler_type": "plateau", "warmup_epochs": 0}
    older = {"scheduler_factor": None, "early_stopping_patience": None, "loss_type": None}
    answer = take(home, sqlite_url, changed(home, tmp_path, "degrees", args={**newer, **older}))
    assert answer.code == 0, answer.out
    config = trials(sqlite_url)[0].user_attrs["config"]
    assert [config[name] for name in ("num_layers", "scheduler_factor", "early_stopping_patience")] == [1, 0.5, 0]


def test_the_same_run_is_there_once_however_often_and_in_whatever_file_it_is_given(home, storage_url, tmp_path):
    later = {name: [*home.held("degrees")[name], value] for name, value in LATER.items()}
    first = take(home, storage_url, home.folder / "runs" / "degrees", home.folder / "runs" / "radians")
    again = take(home, storage_url, home.folder / "runs" / "degrees", changed(home, tmp_path, "degrees", **later))
    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert again.out.count("already trial 0") == 2
    assert len(trials(storage_url)) == 2


def test_a_search_counts_its_own_trials_and_learns_from_the_imported_ones(home, storage_url):
    words = ("run", "--study", "sampled.toml", "--data-dir", "files", "--trials", 1, "--epochs", 5, "--device", "cpu")
    alone = call(*words, "--storage", storage_url, "--study-name", "alone", cwd=home.folder)
    held = ("--study-name", "begun", "--epochs", 5)
    begun = take(home, storage_url, home.run("degrees"), home.run("radians"), *held, study="sampled.toml")
    after = call(*words, "--storage", storage_url, "--study-name", "begun", cwd=home.folder)
    assert (alone.code, begun.code, after.code) == (0, 0, 0), alone.err + begun.err + after.err
    assert "0 of 1 trials done, 2 more imported" in after.err
    (sampled,), (*_, guided) = trials(storage_url, "alone"), trials(storage_url, "begun")
    assert len(trials(storage_url, "begun")) == 3
    assert [guided.user_attrs[key] == sampled.user_attrs[key] for key in ("ordinal", "seed", "sampler_seed")] == [
        True
    ] * 3
    assert guided.params["lr"] != sampled.params["lr"]  # after two trials, which are those, TPE takes over from chance
    status = call("status", "--storage", storage_url, cwd=home.folder).out
    assert "begun: 3 complete, 2 of them imported" in status
    more = call(*words, "--storage", storage_url, "--study-name", "begun", cwd=home.folder)
    assert "nothing to do: study 'begun' already has 1 of 1 trials" in more.out


def test_the_command_of_an_imported_trial_has_the_flags_of_its_run(home, sqlite_url):
    assert take(home, sqlite_url, home.run("radians")).code == 0
    words = ("export", "--storage", sqlite_url, "--trial", 0, "--script", OLD_SCRIPT)
    convert_line, command = call(*words, cwd=home.folder).out.splitlines()
    assert convert_line.endswith("--pose-unit radians")
    parsed, args = vars(build_old().parse_args(shlex.split(command)[2:])), home.held("radians")["args"]
    others = {"data_dir", "save_dir", "log_dir", "num_workers"}
    assert {name: parsed[name] for name in args.keys() - others} == {name: args[name] for name in args.keys() - others}
    again = call("train", "--storage", sqlite_url, "--trial", 0, "--out", "again", "--epochs", 1, cwd=home.folder)
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no checkpoint", "is not a readable checkpoint"),
        ({"epoch": 3}, "it lacks args, model_state_dict, train_loss_history, val_cosine_sim_history, val_loss_history"),
        ({"val_loss_history": [0.5]}, "do not have one number for each epoch"),
        ({"val_loss_history": [float("nan")] * 5}, "val_loss_history holds nan for epoch 1"),
        ({"model_state_dict": {"fc.weight": torch.zeros(2)}}, "holds another model"),
        ({"args": [1, 2]}, "args is [1, 2]; expected the script's flags"),
    ],
)
def test_a_file_that_is_no_run_stops_everything(home, sqlite_url, tmp_path, content, says):
    bad = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        bad.write_bytes(content)
    else:
        torch.save(content if content == {"epoch": 3} else {**home.held("degrees"), **content}, bad)
    answer = take(home, sqlite_url, home.run("degrees"), bad)
    assert answer.code == 2
    assert says in answer.err
    assert "bad.pth" in answer.err
    assert not (tmp_path / "studies.db").exists()


def test_a_folder_without_runs_is_named(home, sqlite_url):
    answer = take(home, sqlite_url, "files")
    assert answer.code == 2
    assert "error: files holds no best_model.pth" in answer.err


def test_a_study_under_other_conditions_and_one_that_is_being_searched_are_left_alone(home, sqlite_url):
    assert take(home, sqlite_url, home.run("degrees")).code == 0
    other = take(home, sqlite_url, home.run("radians"), "--epochs", 8)
    assert (other.code, "was made with epochs = " in other.err) == (2, True)
    with Storage.parse(sqlite_url).searching():
        busy = take(home, sqlite_url, home.run("radians"))
    assert (busy.code, "another `face3d-tune run` is searching" in busy.err) == (2, True)
    assert len(trials(sqlite_url)) == 1
