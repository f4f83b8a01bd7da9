"""Study files of a script: what each says, and every mistake in one with its file and key."""

import re
import sys
from dataclasses import fields

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from stand_in_parsers import NEW_SCRIPT

from face3d_tune.errors import ConfigError, ExportError, StudyFileError
from face3d_tune.script.study_file import ScriptStudyFile, has_script, read
from face3d_tune.search.algorithms import make_pruner, make_sampler
from face3d_tune.study.objective import Objective
from face3d_tune.study.study_file import BoundStudyFile
from face3d_tune.study.tables import Component

SCRIPT = """
p.add_argument('--data_dir', required=True)
p.add_argument('--epochs', type=int, default=80)
p.add_argument('--seed', type=int, default=0)
p.add_argument('--learning-rate', '--lr', dest='lr', type=float, default=1e-3)
p.add_argument('--dropout', type=float, default=0.1)
p.add_argument('--layers', type=int, default=2)
p.add_argument('--heads', type=int, choices=[2, 4, 8], default=4)
p.add_argument('--margin', type=float, choices=[0.0, 0.5], default=0.5)
p.add_argument('--opt', choices=['adam', 'sgd'], default='adam')
p.add_argument('--sizes', type=int, nargs='+', default=[64, 64])
p.add_argument('--amp', action='store_true')
p.add_argument('--always', action='store_true', default=True)
p.add_argument('--cosine_weight', type=float, default=DEFAULT)
p.add_argument('--mse_weight', type=float)
p.add_argument('--odd', type=int, default=0.5)
p.add_argument('--save_dir')
p.add_argument('--log_dir')
p.add_argument('--resume')
p.add_argument('-v', '--verbose', action='count')
"""
TABLE = """
path = "train.py"
metric = "Val/Cosine"
source = "tensorboard"
direction = "maximize"
"""
SPACE = "[space]\nlr = { low = 1e-4, high = 1e-2, scale = 'log' }\n"
FIXED = "[fixed]\ndata_dir = 'data'\n"


@pytest.fixture
def reading(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)

    def reading(table=TABLE, space=SPACE, fixed=FIXED, others="", script=None):
        path = tmp_path / "mine.toml"
        path.write_text(f"[script]\n{table}\n{space}\n{fixed}\n{others}", encoding="utf-8")
        return read(path, script)

    return reading


def test_the_least_file_has_the_defaults_of_the_default_study_and_of_the_script(reading, tmp_path):
    file = reading()
    assert (file.name, file.path, file.trials, file.epochs) == ("mine", tmp_path / "mine.toml", 50, None)
    assert file.space == {"lr": FloatDistribution(1e-4, 1e-2, log=True)}
    assert file.fixed == {"data_dir": "data"}
    assert file.presets == {}
    assert file.objective == Objective("Val/Cosine", "maximize", script=True)
    assert file.sampler.name == "tpe"
    assert file.pruner == Component("shape", {"chance": 0.05, "n_warmup_steps": 5})
    assert file.script.path == tmp_path / "train.py"
    assert file.script.python == sys.executable
    assert (file.script.keep, file.script.keep_direction) == (None, "maximize")
    make_sampler(file, 0)
    make_pruner(file)


def test_it_has_what_a_search_uses_of_a_study_file(reading):
    of_data = {"layout", "feature_size", "use_amp"}
    assert {field.name for field in fields(BoundStudyFile)} - of_data <= {
        field.name for field in fields(ScriptStudyFile)
    }
    for method in ("config", "distinct_presets", "initial_trials", "check"):
        assert callable(getattr(reading(), method))


def test_every_key_of_the_script_is_read(reading, tmp_path):
    (tmp_path / "here").mkdir()
    table = f"""{TABLE}
keep_lowest = "Val/Loss"
epochs_flag = "epochs"
seed_flag = "seed"
folder_flags = ["save_dir", "log_dir"]
resume_flag = "resume"
checkpoint = "*last*.pth"
python = '{sys.executable}'
start_in = "here"
arguments = ["--opt=sgd", "-v"]
environment = {{ NAME = "值" }}
time_limit = "2h"
"""
    script = reading(table).script
    assert (script.keep, script.keep_direction) == ("Val/Loss", "minimize")
    assert (script.epochs_flag, script.seed_flag, script.folder_flags) == ("epochs", "seed", ("save_dir", "log_dir"))
    assert (script.resume_flag, script.checkpoint) == ("resume", "*last*.pth")
    assert (script.python, script.start_in) == (sys.executable, tmp_path / "here")
    assert script.arguments == ("--opt=sgd", "-v")
    assert (script.environment, script.time_limit) == ({"NAME": "值"}, 7200.0)


def test_budget_epochs_go_to_the_flag_and_default_to_the_scripts(reading):
    with_flag = TABLE + 'epochs_flag = "epochs"'
    assert reading(with_flag).epochs == 80
    assert reading(with_flag, others="[budget]\nepochs = 7").epochs == 7
    assert reading(others="[budget]\ntrials = 3").trials == 3


def test_rows_and_values_have_the_type_of_their_flag(reading):
    space = """[space]
layers = { low = 1, high = 4 }
dropout = { low = 0, high = 1 }
heads = [2, 8]
opt = ["sgd", "adam"]
amp = [false, true]
"""
    file = reading(space=space, fixed=FIXED + "lr = 1\nsizes = [8, 16]\nmargin = 0")
    assert file.space == {
        "layers": IntDistribution(1, 4),
        "dropout": FloatDistribution(0.0, 1.0),
        "heads": CategoricalDistribution((2, 8)),
        "opt": CategoricalDistribution(("sgd", "adam")),
        "amp": CategoricalDistribution((False, True)),
    }
    assert repr(file.fixed) == repr({"data_dir": "data", "lr": 1.0, "sizes": [8, 16], "margin": 0.0})


def test_the_command_gives_every_flag_its_value_in_full(reading, tmp_path):
    table = TABLE + 'epochs_flag = "epochs"\nseed_flag = "seed"\narguments = ["-v"]'
    file = reading(table, fixed=FIXED + "amp = true\nsizes = [8, 16]")
    command = file.command(file.config({"lr": 1e-05}, {}), seed=3)
    flags = ("-v", "--data_dir", "data", "--amp", "--sizes", "8", "16", "--learning-rate", "1e-05")
    assert command == (sys.executable, str(tmp_path / "train.py"), *flags, "--epochs", "80", "--seed", "3")
    assert file.command({}, epochs=2)[2:] == ("-v", "--epochs", "2")
    with pytest.raises(ConfigError, match=r"^heads = 3: --heads takes only 2, 4, 8$"):
        file.command({"heads": 3})


def test_the_guides_presets_set_the_flags_that_the_script_has(reading):
    space = "[space]\nlr = { low = 1e-5, high = 1e-2, scale = 'log' }"
    file = reading(space=space, others="[study]\npresets = ['recommended', 'aggressive', 'quickstart']")
    (first, second), aliases = file.distinct_presets()
    assert (first.name, first.params) == ("recommended", {"lr": 5e-5})
    assert first.overrides == {"dropout": 0.1, "cosine_weight": 0.7, "mse_weight": 0.3}
    assert (second.name, second.params) == ("aggressive", {"lr": 2e-5})
    assert aliases == {"quickstart": "recommended"}


def test_a_searched_flag_that_a_preset_does_not_name_has_the_scripts_default(reading):
    space = SPACE + "layers = { low = 1, high = 4 }\nmargin = [0.0, 0.5]\namp = [false, true]"
    file = reading(space=space, others="[presets.mine]\nlr = 5e-3\ndropout = 0.2")
    (mine,) = file.initial_trials()
    assert mine.params == {"lr": 5e-3, "layers": 2, "margin": 0.5, "amp": False}
    assert mine.overrides == {"dropout": 0.2}
    assert file.config(mine.params, mine.overrides) == {
        **{"data_dir": "data", "dropout": 0.2, "lr": 5e-3, "layers": 2, "margin": 0.5, "amp": False}
    }


def test_a_flag_that_is_not_searched_has_its_fixed_value_else_the_scripts_default_if_that_is_known(reading):
    file = reading(fixed=FIXED + "layers = 3")
    known = {name: file.constant(name) for name in ("layers", "dropout", "cosine_weight", "mse_weight", "odd")}
    assert known == {"layers": 3, "dropout": 0.1, "cosine_weight": None, "mse_weight": None, "odd": None}


def test_another_script_may_take_the_place_of_the_one_in_the_file(reading, tmp_path):
    (tmp_path / "other.py").write_text(SCRIPT)
    assert reading(script=tmp_path / "other.py").script.path == tmp_path / "other.py"
    with pytest.raises(ExportError, match=r"none\.py cannot be read"):
        reading(script=tmp_path / "none.py")


def test_a_file_of_the_built_in_trainer_has_no_script(reading, tmp_path):
    reading()
    assert has_script(str(tmp_path / "mine.toml"))
    assert not has_script("default")
    (tmp_path / "plain.toml").write_text("[space]\nlr = [0.1]")
    assert not has_script(str(tmp_path / "plain.toml"))


def test_the_copies_of_the_documented_script_are_searched_by_their_flags(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f"""
[script]
path = '{NEW_SCRIPT}'
metric = "Val/CosineSimilarity"
source = "tensorboard"
direction = "maximize"
epochs_flag = "epochs"
folder_flags = ["save_dir", "log_dir"]
resume_flag = "resume"
[study]
presets = ["baseline", "recommended", "aggressive", "conservative", "quickstart"]
[space]
lr = {{ low = 1e-5, high = 3e-3, scale = "log" }}
cosine_weight = {{ low = 0.3, high = 1.0 }}
""")
    file = read(path)
    assert [trial.name for trial in file.initial_trials()] == [*file.presets]
    assert file.initial_trials()[1].params == {"lr": 5e-5, "cosine_weight": 0.7}


TWICE = "[presets.mine]\nlr = 1e-3\n"


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        # [script]
        ({"table": ""}, "script.path is missing", "--script"),
        ({"table": 'path = "train.py"'}, "script.metric is missing", "face3d-tune script PATH"),
        ({"table": 'path = "none.py"'}, "script.path: ", "name a Python file"),
        ({"table": TABLE + 'metrics = "a"'}, "script.metrics is unknown; did you mean 'metric'?", "known are path"),
        ({"table": TABLE.replace("maxim", "maxm")}, "script.direction = 'maxmize' is unknown; did you mean", "known"),
        (
            {"table": TABLE.replace("sorboard", "sorbord")},
            "script.source = 'tensorbord' is unknown; did you mean",
            "csv",
        ),
        ({"table": TABLE.replace('"Val/Cosine"', "3")}, "script.metric = 3 is not text", None),
        ({"table": TABLE.replace('"Val/Cosine"', '""')}, "script.metric is empty", None),
        ({"table": TABLE + 'keep_lowest="a"\nkeep_highest="b"'}, "script.keep_lowest and script.keep_highest", None),
        (
            {"table": TABLE + 'epochs_flag = "epoch"'},
            "script.epochs_flag = 'epoch' is no flag of {script}; did you mean 'epochs'?",
            "its flags are data_dir, epochs",
        ),
        ({"table": TABLE + 'seed_flag = "amp"'}, "script.seed_flag = 'amp' takes no value", None),
        ({"table": TABLE + 'seed_flag = "lr"'}, "script.seed_flag = 'lr' does not take whole numbers", None),
        ({"table": TABLE + 'folder_flags = "save_dir"'}, "script.folder_flags = 'save_dir' is not a list", None),
        ({"table": TABLE + 'folder_flags = ["save_dirs"]'}, "is no flag of {script}; did you mean 'save_dir'", None),
        ({"table": TABLE + 'folder_flags = ["resume"]\nresume_flag = "resume"'}, "script: two of its keys", None),
        ({"table": TABLE + 'checkpoint = "*.pth"'}, "script.checkpoint needs script.resume_flag", None),
        (
            {"table": TABLE + 'resume_flag = "resume"\ncheckpoint = "../*.pth"'},
            "script.checkpoint = '../*.pth' leads out of the trial's folder",
            "name a file in it",
        ),
        ({"table": TABLE + 'python = "no-such-python"'}, "script.python = 'no-such-python': no such program", "Python"),
        ({"table": TABLE + 'start_in = "nowhere"'}, "script.start_in: ", None),
        ({"table": TABLE + "arguments = '--x'"}, "script.arguments = '--x' is not a list of texts", None),
        ({"table": TABLE + "environment = 'A=1'"}, "script.environment = 'A=1' is not a table", None),
        ({"table": TABLE + "environment = { A = 1 }"}, "script.environment.A = 1 is not text", None),
        (
            {"table": TABLE + "environment = { WANDB_API_KEY = 'x' }"},
            "script.environment.WANDB_API_KEY would be stored with the study",
            "set WANDB_API_KEY in your shell",
        ),
        ({"table": TABLE + "time_limit = 'long'"}, "script.time_limit = 'long' is not a duration; expected", None),
        ({"table": TABLE + "time_limit = 0"}, "script.time_limit = 0 is not a duration", None),
        # [space]
        ({"space": "[space]"}, "[space] is empty", "known are data_dir"),
        ({"space": "[space]\nlr_rate = [1.0]"}, "space.lr_rate is unknown", "known are data_dir"),
        ({"space": "[space]\ndrop_out = [0.1]"}, "space.drop_out is unknown; did you mean 'dropout'?", "known are"),
        ({"space": "[space]\nlr = 3"}, "space.lr = 3 is not a range", None),
        ({"space": "[space]\nlr = { low = 'a', high = 1 }"}, "space.lr = 'a' has the wrong type; expected a num", None),
        ({"space": "[space]\nlayers = { low = 1.5, high = 2 }"}, "space.layers = 1.5 has the wrong type", None),
        ({"space": "[space]\nheads = { low = 2, high = 8 }"}, "space.heads takes only 2, 4, 8; expected a list", None),
        ({"space": "[space]\nheads = [2, 3]"}, "space.heads = 3 is unknown; expected one of 2, 4, 8", None),
        ({"space": "[space]\nopt = ['adm']"}, "space.opt = 'adm' is unknown; expected one of adam, sgd", None),
        ({"space": "[space]\nsizes = [8, 16]"}, "space.sizes takes a list", "set it in [fixed]"),
        ({"space": "[space]\namp = [1, 0]"}, "space.amp = 1 has the wrong type; expected true or false", None),
        ({"space": "[space]\namp = { low = 0, high = 1 }"}, "space.amp has no order", None),
        (
            {"space": "[space]\nalways = [true, false]"},
            "space.always = false: --always is True by default and",
            None,
        ),
        ({"space": "[space]\nverbose = [1, 2]"}, "space.verbose: --verbose takes no value that a study file", None),
        (
            {"space": SPACE + "learning_rate = [0.1]"},
            "space.learning_rate and space.lr are the same flag, --learning-rate; keep one name",
            None,
        ),
        (
            {"table": TABLE + 'epochs_flag = "epochs"', "space": "[space]\nepochs = [5]"},
            "space.epochs is also set by script.epochs_flag; keep one",
            None,
        ),
        ({"table": TABLE + 'arguments = ["--lr=1"]'}, "space.lr is also set by script.arguments; keep one", None),
        # [fixed]
        ({"fixed": FIXED + "lr = 1.0"}, "lr is both in [fixed] and in [space]; keep one", None),
        ({"fixed": FIXED + "layers = 'two'"}, "fixed.layers = 'two' has the wrong type; expected a whole number", None),
        ({"fixed": FIXED + "opt = 'adm'"}, "fixed.opt = 'adm' is unknown; expected one of adam, sgd", None),
        ({"fixed": FIXED + "sizes = 3"}, "fixed.sizes = 3 is not a list; --sizes takes one", None),
        ({"fixed": FIXED + "sizes = ['a']"}, "fixed.sizes = 'a' has the wrong type; expected a whole number", None),
        ({"fixed": "[fixed]\ndata_dir = 3"}, "fixed.data_dir = 3 has the wrong type; expected text", None),
        ({"fixed": ""}, "{script} does not start without --data_dir", "set fixed.data_dir"),
        # [presets]
        ({"others": "[study]\npresets = ['best']"}, "study.presets: best is unknown", "known are baseline"),
        (
            {"space": "[space]\nopt = ['adam']", "others": "[study]\npresets = ['baseline']"},
            "study.presets: baseline sets none of the searched flags, opt",
            "omit it",
        ),
        ({"others": "[presets.mine]\nlr = 1.0"}, "presets.mine.lr = 1.0 is outside the search space", "widen space.lr"),
        ({"others": "[presets.mine]\nlr = 'a'"}, "presets.mine.lr = 'a' has the wrong type", None),
        ({"others": "[presets.mine]\nlayer = 1"}, "presets.mine.layer is unknown; did you mean 'layers'?", None),
        ({"others": "[presets.mine]\nlearning_rate = 1e-3"}, "presets.mine.learning_rate and space.lr are the", None),
        ({"others": "[presets.baseline]\nlr = 1e-3"}, "presets.baseline has the name of a documented preset", None),
        ({"others": '[presets."a\\u001bb"]\nlr = 1e-3'}, "has a character that no line can show; rename it", None),
        (
            {"space": SPACE + "cosine_weight = [0.5]", "others": TWICE},
            "presets.mine.cosine_weight is not set, and the script's default of --cosine_weight cannot be read",
            "set cosine_weight in the preset",
        ),
        (
            {"space": SPACE + "mse_weight = [0.5]", "others": TWICE},
            "presets.mine.mse_weight is not set, and the script has no default of --mse_weight",
            "set mse_weight in the preset",
        ),
        (
            {"space": SPACE + "odd = [1, 2]", "others": TWICE},
            "presets.mine.odd is not set, and the script's default does not fit: odd = 0.5 has the wrong type",
            "set odd in the preset",
        ),
        # the rest
        ({"others": "[budget]\nepochs = 0"}, "budget.epochs = 0 is out of range", None),
        (
            {"table": TABLE + 'epochs_flag = "layers"\n', "others": "[budget]\ntrials = 'x'"},
            "budget.trials = 'x' is out of range",
            None,
        ),
        ({"others": "[study]\nobjective = 'cosine'"}, "study.objective is unknown", "known are description, presets"),
        ({"others": "[sampling]"}, "sampling is unknown; did you mean 'sampler'?", None),
    ],
)
def test_every_mistake_is_answered_with_file_and_key(reading, tmp_path, changes, message, hint):
    with pytest.raises(StudyFileError) as caught:
        reading(**changes)
    expected = message.format(script=tmp_path / "train.py") if "{script}" in message else message
    assert caught.value.message.startswith(f"{tmp_path / 'mine.toml'}: ")
    assert expected in caught.value.message
    assert "\n" not in caught.value.message
    if hint:
        assert hint in caught.value.hint


def test_epochs_that_neither_file_nor_script_says_are_missing(reading, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT.replace("default=80", "default=None"))
    with pytest.raises(StudyFileError, match=re.escape("budget.epochs is missing, which script.epochs_flag gets")):
        reading(TABLE + 'epochs_flag = "epochs"')
