"""What the flags of a script are for, and in which ranges to search them, by their names and defaults."""

import pytest

from face3d_tune.script import guesses
from face3d_tune.script.flags import read_script
from face3d_tune.script.guesses import Roles


@pytest.fixture
def script(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()

    def script(*declarations):
        path = tmp_path / "code" / "train.py"
        path.write_text("".join(f"p.add_argument({each})\n" for each in declarations))
        return read_script(path)

    monkeypatch.chdir(tmp_path)
    return script


def test_the_roles_of_the_documented_names(script):
    read = script(
        "'--epochs', type=int, default=5",
        "'--seed', type=int, default=1",
        "'--save_dir', default='checkpoints'",
        "'--log_dir'",
        "'--data_dir', default='data'",
        "'--resume'",
    )
    assert guesses.roles(read) == Roles("epochs", "seed", ("save_dir", "log_dir"), "resume")


def test_the_roles_of_other_names_and_of_none(script):
    read = script(
        "'--max-epochs', type=int, default=5",
        "'--random-seed', type=int",
        "'--output-dir', type=Path",
        "'--out', default='ckpt'",
        "'--save_path', default='best.pth'",  # a file, not a folder
        "'--restart-from'",
        "'--model_dir', nargs='+'",
    )
    assert guesses.roles(read) == Roles("max_epochs", "random_seed", ("output_dir", "out"), "restart_from")
    read = script("'--lr', type=float, default=0.1", "'--resume', action='store_true'", "'--epochs', type=str")
    assert guesses.roles(read) == Roles(None, None, (), None)
    read = script("'--num_train_epochs', type=float, default=3.0", "'--default_root_dir', default='.'")
    assert guesses.roles(read) == Roles("num_train_epochs", None, ("default_root_dir",), None)


@pytest.mark.parametrize(
    ("declaration", "row", "searched"),
    [
        ("'--lr', type=float, default=1e-4", {"low": 3.3e-6, "high": 3e-3, "scale": "log"}, True),
        ("'--learning-rate', type=float, default=0.1", {"low": 0.0033, "high": 1.0, "scale": "log"}, True),
        ("'--weight_decay', type=float, default=1e-5", {"low": 3.3e-7, "high": 3e-4, "scale": "log"}, True),
        ("'--weight_decay', type=float, default=0.0", {"low": 1e-6, "high": 0.1, "scale": "log"}, True),
        ("'--cosine_weight', type=float, default=0.5", {"low": 0.05, "high": 1.0}, True),
        ("'--triplet_weight', type=float, default=4.0", {"low": 0.05, "high": 8.0}, True),
        ("'--identity_weight', type=float, default=0.0", {"low": 0.0, "high": 1.0}, True),
        ("'--dropout', type=float, default=0.1", {"low": 0.0, "high": 0.5}, True),
        ("'--margin', type=float, default=0.3", {"low": 0.0, "high": 1.0}, True),
        ("'--temperature', type=float, default=0.2", {"low": 0.05, "high": 0.8}, True),
        ("'--scheduler_factor', type=float, default=0.5", {"low": 0.1, "high": 0.9}, True),
        ("'--scheduler_patience', type=int, default=5", {"low": 1, "high": 15}, True),
        ("'--scheduler_min_lr', type=float, default=0.0", {"low": 1e-8, "high": 1e-5, "scale": "log"}, True),
        ("'--scheduler_type', choices=['cosine', 'plateau'], default='cosine'", ["cosine", "plateau"], True),
        ("'--warmup_epochs', type=int, default=10", {"low": 0, "high": 20}, True),
        ("'--early_stopping_patience', type=int, default=10", {"low": 3, "high": 30}, False),
        ("'--batch_size', type=int, default=32", [16, 32, 64], False),
        ("'--nhead', type=int, default=1", [1, 2], False),
        ("'--num_layers', type=int, default=4", {"low": 2, "high": 8}, False),
        ("'--d_model', type=int, default=512", [256, 512, 1024], False),
        ("'--optimizer', choices=['adam', 'sgd'], default='adam'", ["adam", "sgd"], False),
        ("'--momentum', type=float, default=0.9", {"low": 0.5, "high": 0.99}, False),
        ("'--label_smoothing', type=float, default=0.1", {"low": 0.0, "high": 0.3}, False),
        ("'--warmup_ratio', type=float, default=0.1", {"low": 0.0, "high": 0.3}, True),
        ("'--use_pose_attention', action='store_true'", [False, True], False),
        ("'--residual', action=argparse.BooleanOptionalAction, default=True", [False, True], False),
        ("'--no_bias', dest='bias', action='store_false'", [False, True], False),
    ],
)
def test_a_range_lies_round_the_default_by_name_and_type(script, declaration, row, searched):
    read = script(declaration)
    (guess,) = guesses.rows(read, set())
    assert (guess.row, guess.searched) == (row, searched)
    assert list(guesses.rows(read, {guess.name})) == []


@pytest.mark.parametrize(
    "declaration",
    [
        "'--num_workers', type=int, default=4",
        "'--device', default='cpu'",
        "'--log_interval', type=int, default=10",
        "'--use_amp', action='store_true'",
        "'--lr', type=float",  # without a default
        "'--lr', type=float, default=DEFAULT",
        "'--sizes', type=int, nargs='+', default=[1]",
        "'--always', action='store_true', default=True",  # no flag undoes it
        "'--name', default='x'",
        "'--frozen_blocks', type=int, default=0",  # 0 often means none, and -1 all
        "'-v', '--verbosity', action='count', default=0",
    ],
)
def test_what_no_search_can_or_need_vary_has_no_row(script, declaration):
    assert list(guesses.rows(script(declaration), set())) == []


def test_a_plan_keeps_what_a_person_types_and_makes_paths_absolute(script, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "code" / "split.json").touch()
    read = script(
        *("'--epochs', type=int, default=5", "'--seed', type=int", "'--save_dir'", "'--resume'"),
        *("'--data_dir', default='files'", "'--split', default='split.json'", "'--dataset', default='files'"),
        *("'--data', default=''", "'--train_root', choices=['files', 'others'], default='files'"),
        "'--lr', type=float, default=0.1",
    )
    plan = guesses.plan(read, [])
    assert plan.fixed == {"data_dir": str(tmp_path / "files"), "split": str(tmp_path / "code" / "split.json")}
    assert (plan.epochs, plan.rest) == (None, ())
    words = "./files --data_dir files --dataset files"
    words += " --epochs 9 --seed 3 --save_dir here --resume old.pth --lr 1 --unknown x"
    plan = guesses.plan(read, words.split())
    assert (plan.fixed["data_dir"], plan.fixed["dataset"]) == (str(tmp_path / "files"), "files")
    assert plan.roles == Roles("epochs", None, ("save_dir",), None)  # seed and checkpoint are the person's now
    assert plan.epochs == 9
    assert plan.rest == (str(tmp_path / "files"), "--unknown", "x")
    assert {name: plan.fixed.get(name) for name in ("seed", "resume", "lr", "save_dir")} == {
        **{"seed": 3, "resume": "old.pth", "lr": 1.0, "save_dir": None}
    }


def test_a_script_that_validates_rarely_is_made_to_validate_after_every_epoch(script):
    read = script(
        *("'--eval_every', type=int, default=5", "'--val-interval', type=int, default=1"),
        "'--check_val_every_n_epoch', type=int, default=5",
        *("'--val_freq', type=int, default=500", "'--lr', type=float, default=0.1"),
    )
    assert guesses.plan(read, []).fixed == {"eval_every": 1, "check_val_every_n_epoch": 1}  # val_freq counts steps
    assert guesses.plan(read, ["--eval_every", "2"]).fixed["eval_every"] == 2  # the person knows
