"""A trial said in the flags of the users' script: every value arrives, or is named as missing."""

import json
import math
import random
import shlex
import subprocess
import tomllib
from dataclasses import replace
from types import MappingProxyType

import pytest
from stand_in_parsers import NEW_SCRIPT, OLD_SCRIPT, build_new, build_old

from face3d_tune.config import PARAMETERS, TrialConfig, resolve
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import ExportError
from face3d_tune.script.export import commands, quote, to_json, to_toml
from face3d_tune.script.flags import DOCUMENTED, UNKNOWN, Flag, Script, read_script
from face3d_tune.study.presets import PRESETS
from face3d_tune.training.checkpoint_file import checkpoint_args

USE = DataUse(data_dir="train/datas/file", feature_size=512, file_pose_unit="degrees")
COPIES = {"old": (OLD_SCRIPT, build_old), "new": (NEW_SCRIPT, build_new)}
AWKWARD = [
    "plain",
    "",
    "two words",
    "张三 的数据",
    "it's",
    "‘curly’ ‚low‛",
    'say "hi" & bye',
    "a&b|c>d<e^f",
    "(x)!y",
    "$HOME `id` $(id)",
    "C:\\my data\\",
    'ends\\"',
    'back\\\\"slash" x',
    "semi;colon,comma",
    "#tag @x {y} *?[z]",
    "--option=1.5",
    "-x.y",
    "tab\there",
    "~user",
]


BEYOND = {  # what no copy of the script can do, at values that do something
    "optimizer": "adam",
    "focal_gamma": 1.0,
    "angle_weight": 0.5,
    "identity_weight": 0.25,
    "oversampling": 2.0,
    "view_mixing": 0.5,
    "feature_noise": 0.25,
    "pose_jitter": 5.0,
    "landmark_noise": 0.125,
}


def preset(name, **changes):
    return resolve({**PRESETS[name], **changes}, feature_size=512, epochs=100, layout="keypoint")


def random_config(seed):
    """A config that a script for 512-number features can be told, with values that only repr keeps."""
    r = random.Random(seed)
    return TrialConfig(
        d_model=512,
        dim_feedforward=r.randint(1, 9999),
        nhead=r.choice([1, 2, 4, 8, 16]),
        num_layers=r.randint(1, 12),
        dropout=r.random() * 0.99,
        use_spatial_attention=r.random() < 0.5,
        use_pose_attention=r.random() < 0.5,
        batch_size=r.randint(2, 500),
        epochs=r.randint(1, 500),
        lr=10 ** r.uniform(-9, 1),
        weight_decay=10 ** r.uniform(-9, 1),
        mse_weight=r.random(),
        cosine_weight=r.random() + 1e-17,
        loss_type=r.choice(["combined", "mse", "cosine"]),
        scheduler_factor=r.uniform(0.01, 0.99),
        scheduler_patience=r.randint(0, 30),
        scheduler_min_lr=r.choice([0.0, 10 ** r.uniform(-12, -3)]),
        early_stopping_patience=r.randint(0, 30),
        early_stopping_min_delta=10 ** r.uniform(-12, -1),
        use_mixed_precision=r.random() < 0.5,
    )


def only_command(config, use=USE, script=DOCUMENTED):
    export = commands(config, use, script)
    assert export.missing == ()
    (command,) = export.commands
    return command


def expected_values(config, copy):
    """What the parser of a copy has to hold after the exported command."""
    values = config.to_dict()
    for name in ("layout", "pose_unit", "inputs", "identity_temperature", *BEYOND):
        del values[name]
    if copy == "new":
        values["num_decoder_layers"] = values.pop("num_layers")
    else:
        del values["scheduler_type"], values["warmup_epochs"]
    return {**values, "data_dir": "train/datas/file"}


@pytest.mark.parametrize("copy", COPIES)
def test_every_preset_and_200_random_configs_arrive_exactly_in_an_old_and_a_new_copy(copy):
    path, build = COPIES[copy]
    script, parser = read_script(path), build()
    for config in [*(preset(name) for name in PRESETS), *(random_config(seed) for seed in range(200))]:
        python, typed_path, *arguments = shlex.split(quote(only_command(config, script=script), "bash"))
        assert (python, typed_path) == ("python", str(path))
        parsed = vars(parser.parse_args(arguments))
        expected = expected_values(config, copy)
        assert {name: parsed[name] for name in expected} == expected


def test_no_default_of_a_copy_is_relied_on():
    for path, build in COPIES.values():
        parser = build()
        config = preset("aggressive")  # every flag without value is on
        arguments = only_command(config, script=read_script(path))[2:]
        expected = vars(parser.parse_args(arguments))
        harmless = ("num_workers", "device", "save_dir", "log_dir", "resume", "deterministic", "model_type")
        harmless += ("warmup_lr", "cosine_eta_min", "min_yaw_angle", "max_yaw_angle")
        parser.set_defaults(**{name: "leaked" for name in expected if name not in harmless})
        assert vars(parser.parse_args(arguments)) == expected


def test_the_recommended_preset_is_the_guides_command_in_full():
    assert quote(only_command(preset("recommended")), "bash") == (
        "python train_transformer3D/train_3d.py --data_dir train/datas/file --d_model 512 --dim_feedforward 2048"
        " --nhead 8 --num_layers 4 --dropout 0.1 --batch_size 32 --epochs 100 --lr 5e-05 --weight_decay 1e-05"
        " --mse_weight 0.3 --cosine_weight 0.7 --loss_type combined --scheduler_factor 0.2 --scheduler_patience 3"
        " --scheduler_min_lr 1e-07 --early_stopping_patience 15 --early_stopping_min_delta 1e-05"
        " --use_mixed_precision"
    )


# What copies of the script can and cannot be told


def with_flags(script=DOCUMENTED, without=(), **flags):
    kept = {name: flag for name, flag in script.flags.items() if name not in without}
    return Script(script.path, MappingProxyType({**kept, **flags}))


def test_a_flag_the_copy_lacks_is_no_loss_where_the_copy_cannot_differ():
    optional = ("loss_type", "early_stopping_patience", "early_stopping_min_delta")
    switches = ("use_mixed_precision", "use_spatial_attention", "use_pose_attention")
    command = only_command(preset("baseline"), script=with_flags(without=(*optional, *switches)))
    assert not {f"--{name}" for name in (*optional, *switches)} & {*command}


@pytest.mark.parametrize(
    ("flag", "changes", "value"),
    [
        ("loss_type", {"loss_type": "mse"}, "mse"),
        ("early_stopping_patience", {"early_stopping_patience": 15}, "15"),
        ("early_stopping_min_delta", {"early_stopping_patience": 15}, "1e-05"),
        ("use_pose_attention", {"use_pose_attention": True}, "True"),
        ("weight_decay", {}, "1e-05"),
        ("num_layers", {"num_layers": 6}, "6"),
    ],
)
def test_any_other_value_without_a_flag_is_named_as_missing(flag, changes, value):
    export = commands(preset("baseline", **changes), USE, with_flags(without=(flag,)))
    assert export.missing == (f"{flag} = {value}: train_transformer3D/train_3d.py has no --{flag}",)
    assert f"--{flag}" not in export.commands[0]


def test_a_switch_that_is_on_by_default_is_missing_when_it_must_be_off():
    script = with_flags(use_mixed_precision=Flag(name="use_mixed_precision", takes_value=False, default=True))
    off, on = (commands(preset(name), USE, script) for name in ("baseline", "recommended"))
    assert off.missing == (
        "use_mixed_precision = False: --use_mixed_precision is True by default and no flag undoes that",
    )
    assert on.missing == ()
    assert on.commands[0][-1] == "--use_mixed_precision"


def test_a_switch_whose_default_cannot_be_read_is_missing_when_it_must_be_off():
    script = with_flags(use_mixed_precision=Flag(name="amp", takes_value=False, default=UNKNOWN))
    assert commands(preset("baseline"), USE, script).missing == (
        "use_mixed_precision = False: no flag says so, and the default of --amp cannot be read from the source",
    )


def test_a_switch_with_an_opposite_is_always_stated():
    script = with_flags(use_mixed_precision=Flag(name="amp", takes_value=False, default=UNKNOWN, off_name="no-amp"))
    assert "--no-amp" in only_command(preset("baseline"), script=script)
    assert "--amp" in only_command(preset("recommended"), script=script)


def test_a_switch_that_can_only_be_turned_off_is_left_alone_when_on():
    script = with_flags(use_mixed_precision=Flag(name=None, takes_value=False, default=True, off_name="no_amp"))
    assert "--no_amp" in only_command(preset("baseline"), script=script)
    assert "--no_amp" not in only_command(preset("recommended"), script=script)


def test_a_switch_that_takes_a_value_gets_it_either_way():
    script = with_flags(use_mixed_precision=Flag(name="use_mixed_precision", default=False))
    for name, word in (("baseline", "False"), ("recommended", "True")):
        command = only_command(preset(name), script=script)
        assert command[command.index("--use_mixed_precision") + 1] == word


def test_a_number_for_a_flag_without_value_is_missing():
    script = with_flags(dropout=Flag(name="dropout", takes_value=False, default=False))
    assert commands(preset("baseline"), USE, script).missing == ("dropout = 0.1: --dropout takes no value",)


def test_a_value_outside_the_choices_is_missing():
    script = with_flags(nhead=Flag(name="nhead", choices=(4, 16)), lr=Flag(name="learning-rate"))
    export = commands(preset("baseline"), USE, script)
    assert export.missing == ("nhead = 8: --nhead takes only 4, 16",)
    assert "--nhead" not in export.commands[0]
    assert "--learning-rate" in export.commands[0]


def test_a_copy_without_a_plateau_scheduler_is_missing_it():
    script = with_flags(scheduler_type=Flag(name="scheduler_type", choices=("cosine", "step")))
    assert commands(preset("baseline"), USE, script).missing == (
        "scheduler_type = plateau: --scheduler_type takes only cosine, step",
    )


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("name", BEYOND)
def test_what_no_copy_can_do_is_named_as_missing_and_never_dropped(name, copy):
    path, _ = COPIES[copy]
    export = commands(preset("baseline", **{name: BEYOND[name]}), USE, read_script(path))
    assert export.missing == (f"{name} = {BEYOND[name]}: {path} has no --{name}",)
    assert commands(preset("baseline"), USE, read_script(path)).missing == ()


def test_the_temperature_of_the_identity_term_is_missing_where_the_term_counts():
    cold = preset("baseline", identity_temperature=0.05)
    assert commands(cold, USE).missing == ()
    assert commands(replace(cold, identity_weight=0.5), USE).missing == (
        f"identity_weight = 0.5: {DOCUMENTED.path} has no --identity_weight",
        f"identity_temperature = 0.05: {DOCUMENTED.path} has no --identity_temperature",
    )


def test_the_documented_script_has_neither_cosine_nor_warm_up():
    script = DOCUMENTED.path
    assert commands(preset("baseline", scheduler_type="cosine", warmup_epochs=3), USE).missing == (
        f"scheduler_type = cosine: {script} has no --scheduler_type",
        f"warmup_epochs = 3: {script} has no --warmup_epochs",
    )


def told(config):
    """What a newer copy is told of the schedule, and what the reader is."""
    export = commands(config, USE, read_script(NEW_SCRIPT))
    parsed = build_new().parse_args(export.commands[0][2:])
    held = (parsed.scheduler_type, parsed.warmup_epochs, parsed.warmup_lr, parsed.cosine_eta_min)
    return held, export.missing, [note for note in export.notes if "cosine" in note]


def test_a_newer_copy_is_told_cosine_with_its_minimum():
    config = preset("baseline", scheduler_type="cosine", scheduler_min_lr=2e-6)
    (kind, warm, _, least), missing, (note,) = told(config)
    assert (kind, warm, least, missing) == ("cosine", 0, 2e-6, ())
    assert note.startswith("the learning rate falls by a cosine over all epochs")


def test_a_newer_copy_is_told_a_warm_up_whose_line_goes_through_our_rates():
    config = preset("baseline", scheduler_type="cosine", warmup_epochs=4)
    (kind, warm, first, least), missing, notes = told(config)
    assert (kind, warm, least, missing, len(notes)) == ("cosine", 4, 0.0, (), 1)
    line = [first + (config.lr - first) * epoch / warm for epoch in range(warm)]  # LinearLR from warmup_lr to lr
    assert line == pytest.approx([config.lr * epoch / 5 for epoch in (1, 2, 3, 4)], rel=1e-12)


def test_a_warm_up_before_a_plateau_is_refused_and_the_default_of_the_copy_undone():
    (kind, warm, _, _), missing, notes = told(preset("baseline", warmup_epochs=4))
    assert (kind, warm, notes) == ("plateau", 0, [])
    assert missing == ("warmup_epochs = 4: torch cannot chain a warm-up with plateau",)


def test_a_cosine_whose_minimum_or_start_no_flag_says_is_missing():
    script = with_flags(scheduler_type=Flag(name="scheduler_type"), warmup_epochs=Flag(name="warmup_epochs"))
    export = commands(preset("baseline", scheduler_type="cosine", warmup_epochs=4), USE, script)
    assert export.missing == (
        f"warmup_lr = 2e-05: {script.path} has no --warmup_lr",
        f"cosine_eta_min = 0.0: {script.path} has no --cosine_eta_min",
    )


def test_a_flag_of_the_copy_that_has_our_name_is_used_and_noted():
    script = with_flags(focal_gamma=Flag(name="focal_gamma"))
    export = commands(preset("baseline", focal_gamma=1.5), USE, script)
    assert export.missing == ()
    assert "--focal_gamma 1.5" in " ".join(export.commands[0])
    assert export.notes == ("your copy has --focal_gamma of its own; see that it means what docs/tuning.md says",)


def test_a_copy_with_both_names_for_the_layers_is_told_both():
    command = only_command(preset("baseline"), script=with_flags(num_decoder_layers=Flag(name="num_decoder_layers")))
    assert [command[command.index(f"--{name}") + 1] for name in ("num_layers", "num_decoder_layers")] == ["4", "4"]


def test_a_width_other_than_the_features_is_missing():
    export = commands(preset("baseline", d_model=768), USE)
    assert export.missing == ("d_model = 768: their model needs d_model = 512, the feature size",)


def test_the_layout_is_a_note_where_a_flag_we_do_not_know_chooses_it():
    new = read_script(NEW_SCRIPT)
    assert commands(preset("baseline"), USE, new).notes == (
        "your copy chooses the layout by --model_type; see that it builds the `keypoint` layout",
    )
    assert commands(replace(preset("baseline"), layout="pose"), USE).notes == (
        "this trial was trained with the `pose` layout: use a copy of the script that builds it",
    )
    assert commands(preset("baseline"), USE).notes == ()


def test_flags_that_no_trial_sets_are_noted():
    script = with_flags(
        run_name=Flag(name="run-name", required=True),
        seed=Flag(name="seed"),
        no_mixup=Flag(name=None, off_name="no_mixup"),
    )
    assert commands(preset("baseline"), USE, script).notes == (
        "your copy does not start without --run-name: add it",
        "your copy also has --no_mixup, --seed: no trial sets it, so its default applies",
    )


# The data: yaw limits and pose units


def yaw_words(config, script=None, **use):
    (command,) = commands(config, replace(USE, **use), script or read_script(NEW_SCRIPT)).commands
    return {word: float(command[i + 1]) for i, word in enumerate(command) if word.endswith("yaw_angle")}


def test_yaw_limits_are_stated_when_set():
    assert yaw_words(preset("baseline")) == {}
    assert yaw_words(preset("baseline"), min_yaw=30.0) == {"--min_yaw_angle": 30.0}
    assert yaw_words(preset("baseline"), max_yaw=60.5) == {"--max_yaw_angle": 60.5}


def test_a_copy_without_yaw_flags_is_missing_the_limits():
    export = commands(preset("baseline"), replace(USE, min_yaw=30.0, max_yaw=60.0), DOCUMENTED)
    assert export.missing == (
        "min_yaw_angle = 30.0: train_transformer3D/train_3d.py has no --min_yaw_angle",
        "max_yaw_angle = 60.0: train_transformer3D/train_3d.py has no --max_yaw_angle",
    )


def test_a_default_limit_of_the_copy_is_undone():
    flags = {name: Flag(name=name, default=value) for name, value in (("min_yaw_angle", 10), ("max_yaw_angle", 90))}
    limits = yaw_words(preset("baseline"), script=with_flags(**flags))
    assert limits == {"--min_yaw_angle": 0.0, "--max_yaw_angle": math.inf}


def test_limits_of_another_angle_are_not_told_to_a_script_that_limits_the_first():
    use = {"min_yaw": 30.0, "max_yaw": 60.0, "turn_angle": "second"}
    assert yaw_words(preset("baseline"), **use) == {}
    export = commands(preset("baseline"), replace(USE, **use), read_script(NEW_SCRIPT))
    assert export.missing == (
        "min_yaw_angle = 30.0 of the second angle: the script limits the first",
        "max_yaw_angle = 60.0 of the second angle: the script limits the first",
    )
    assert "the study's head turn is the second angle of a pose; the script's yaw is the first" in export.notes
    flags = {name: Flag(name=name, default=value) for name, value in (("min_yaw_angle", 10), ("max_yaw_angle", 90))}
    limits = yaw_words(preset("baseline"), script=with_flags(**flags), **use)
    assert limits == {"--min_yaw_angle": 0.0, "--max_yaw_angle": math.inf}  # a default of the script is undone


def test_without_limits_another_angle_leaves_the_command_as_it_is():
    assert only_command(preset("baseline"), replace(USE, turn_angle="third")) == only_command(preset("baseline"), USE)


def test_checkpoint_args_hold_no_limits_of_another_angle():
    args = checkpoint_args(preset("baseline"), replace(USE, min_yaw=30.0, max_yaw=60.0, turn_angle="third"))
    assert (args["min_yaw_angle"], args["max_yaw_angle"], args["turn_angle"]) == (0.0, None, "third")


def test_a_trial_in_radians_trains_on_a_converted_copy_with_its_limits_in_radians():
    use = replace(USE, data_dir="数据/faces/", min_yaw=30.0, max_yaw=90.0)
    export = commands(preset("baseline", pose_unit="radians"), use, read_script(NEW_SCRIPT))
    convert, train = export.commands
    copy = "数据/faces-radians"
    assert convert == ["face3d-tune", "data", "convert", "数据/faces/", copy, "--pose-unit", "radians"]
    parsed = build_new().parse_args(train[2:])
    assert parsed.data_dir == copy
    assert parsed.min_yaw_angle == pytest.approx(math.pi / 6, abs=1e-15)
    assert parsed.max_yaw_angle == pytest.approx(math.pi / 2, abs=1e-15)


def test_a_trial_on_a_baselines_output_trains_on_a_converted_copy_of_the_same_people_and_views():
    config = preset("baseline", inputs="ridge", pose_unit="radians")
    use = replace(USE, data_dir="faces", min_yaw=20.0, max_yaw=60.0, turn_angle="second")
    convert, train = commands(config, use).commands
    limits = ["--min-yaw", "20.0", "--max-yaw", "60.0", "--turn-angle", "second"]
    options = ["--inputs", "ridge", *limits, "--pose-unit", "radians"]
    assert convert == ["face3d-tune", "data", "convert", "faces", "faces-ridge-radians", *options]
    assert train[3] == "faces-ridge-radians"
    assert "--inputs" not in train
    (everyone, _) = commands(config, replace(use, split="none")).commands
    assert everyone[5:9] == ["--inputs", "ridge", "--split", "none"]
    (convert, _) = commands(preset("baseline", inputs="kernel"), USE).commands
    assert convert[4:] == ["train/datas/file-kernel", "--inputs", "kernel"]
    assert commands(config, use).missing == commands(preset("baseline", pose_unit="radians"), use).missing


def test_files_in_radians_are_converted_for_a_trial_in_degrees():
    use = replace(USE, file_pose_unit="radians", max_yaw=60.0)
    convert, train = commands(preset("baseline"), use, read_script(NEW_SCRIPT)).commands
    assert convert[-3:] == ["train/datas/file-degrees", "--pose-unit", "degrees"]
    assert build_new().parse_args(train[2:]).max_yaw_angle == 60.0


def test_files_in_radians_need_no_copy_for_a_trial_in_radians():
    limits = yaw_words(preset("baseline", pose_unit="radians"), file_pose_unit="radians", max_yaw=180.0)
    assert limits == {"--max_yaw_angle": math.pi}


def test_a_folder_that_begins_with_a_dash_is_no_option():
    use = replace(USE, data_dir="-faces")
    assert build_old().parse_args(only_command(preset("baseline"), use)[2:]).data_dir == "./-faces"
    convert, _ = commands(preset("baseline", pose_unit="radians"), use).commands
    assert convert[3:5] == ["./-faces", "./-faces-radians"]


# Quoting, read back by un-quoters written from the shells' own rules


def powershell_reads(line):
    """The arguments of one PowerShell line of barewords and single-quoted strings."""
    arguments, i = [], 2 if line.startswith("& ") else 0
    while i < len(line):
        word = ""
        if line[i] in "'‘’‚‛":
            i += 1
            while line[i] not in "'‘’‚‛" or (i + 1 < len(line) and line[i + 1] in "'‘’‚‛"):
                i += 2 if line[i] in "'‘’‚‛" else 1
                word += line[i - 1]
            i += 1
        else:
            while i < len(line) and line[i] != " ":
                assert line[i] not in "'\"`$&|;<>(){}@,#*?[]~!%^=“”„–—―", line
                word += line[i]
                i += 1
            assert not (word.startswith("-") and set(".:") & set(word)), word
        assert i == len(line) or line[i] == " ", line
        arguments.append(word)
        i += 1
    return arguments


def cmd_passes_on(line):
    """The command line that cmd starts a program with: carets outside quotes are taken away."""
    passed, quoted, i = "", False, 0
    while i < len(line):
        assert line[i] != "%", line
        if line[i] == '"':
            quoted = not quoted
        elif not quoted:
            assert line[i] not in "&|<>()", line
            i += line[i] == "^"
        passed += line[i]
        i += 1
    assert not quoted
    return passed


def c_runtime_reads(line):
    """The arguments that a Windows program's C runtime cuts from its command line."""
    arguments, word, started, quoted, slashes = [], "", False, False, 0
    for character in line + " ":
        if character == "\\":
            slashes += 1
            started = True
            continue
        if character == '"':
            word += "\\" * (slashes // 2)
            if slashes % 2:
                word += '"'
            else:
                quoted = not quoted
            started = True
        else:
            word += "\\" * slashes
            if character in " \t" and not quoted:
                if started:
                    arguments.append(word)
                word, started = "", False
            else:
                word += character
                started = True
        slashes = 0
    return arguments


READERS = {
    "bash": shlex.split,
    "powershell": powershell_reads,
    "cmd": lambda line: c_runtime_reads(cmd_passes_on(line)),
}


@pytest.mark.parametrize("shell", READERS)
@pytest.mark.parametrize("argument", AWKWARD)
def test_awkward_arguments_survive_every_shell(shell, argument):
    arguments = ["python", argument, "between", argument]
    line = quote(arguments, shell)
    assert "\n" not in line
    assert READERS[shell](line) == arguments


def test_random_arguments_survive_every_shell():
    r = random.Random(3)
    for _ in range(2000):
        arguments = ["python"] + ["".join(r.choices("a é张\\\"'’&^|<>()!$`-.;=", k=r.randint(0, 8))) for _ in range(3)]
        for shell, read in READERS.items():
            assert read(quote(arguments, shell)) == arguments, (shell, arguments)


def test_a_real_bash_hears_the_same():
    script = "printf '%s\\0' " + quote(AWKWARD, "bash")
    heard = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode()
    assert heard.split("\0")[:-1] == AWKWARD


@pytest.mark.parametrize("shell", READERS)
def test_every_preset_survives_every_shell(shell):
    for name in PRESETS:
        command = only_command(preset(name), replace(USE, data_dir="D:\\人脸 数据\\it's & more"))
        assert READERS[shell](quote(command, shell)) == command


def test_plain_words_stay_unquoted():
    words = ["python", "train_transformer3D/train_3d.py", "--lr", "5e-05", "--use_pose_attention", "C:\\data"]
    assert quote(words, "powershell") == " ".join(words)
    assert quote(words, "cmd") == " ".join(words)


def test_a_quoted_program_is_called_in_powershell():
    assert quote(["my python", "it's"], "powershell") == "& 'my python' 'it''s'"


@pytest.mark.parametrize("argument", ["100% data", "line\nbreak"])
def test_what_cmd_cannot_say_is_refused_with_its_name(argument):
    with pytest.raises(ExportError) as caught:
        quote(["python", argument], "cmd")
    assert caught.value.message == f"cmd has no way to type the argument {argument!r}"
    assert caught.value.hint == "rename what it names without a % or line break, or use --shell powershell"


# JSON, TOML and the args of a checkpoint


def test_json_gives_back_the_config():
    text = to_json(preset("recommended"), USE, {"study": "人脸", "trial": 3})
    said = json.loads(text)
    assert list(said) == ["study", "trial", "config", "data"]
    assert TrialConfig(**said["config"]) == preset("recommended")
    assert said["data"]["max_yaw"] is None
    assert "人脸" in text


@pytest.mark.parametrize("name", ["best", '张三\'s "best" [1]'])
def test_a_toml_preset_resolves_to_the_same_config(name):
    for config in [*(preset(known) for known in PRESETS), *(random_config(seed) for seed in range(50))]:
        table = tomllib.loads(to_toml(name, config, 512))
        (values,) = table["presets"].values()
        assert list(table["presets"]) == [name]
        assert resolve(values, feature_size=512, epochs=config.epochs, layout="keypoint") == config


def test_a_toml_preset_fixes_no_size_that_follows_from_the_data():
    values = tomllib.loads(to_toml("best", preset("recommended"), 512))["presets"]["best"]
    assert set(values) == set(PARAMETERS) - {"width", "d_model", "dim_feedforward"}
    assert resolve(values, feature_size=128, epochs=100, layout="keypoint").dim_feedforward == 512


def test_a_toml_preset_fixes_sizes_of_its_own():
    config = preset("recommended", d_model=768, dim_feedforward=1024)
    values = tomllib.loads(to_toml("best", config, 512))["presets"]["best"]
    assert (values["width"], values["dim_feedforward"]) == (1.5, 1024)


def test_a_toml_preset_tells_the_settings_of_its_run_in_a_comment():
    first = to_toml("best", preset("recommended"), 512).splitlines()[0]
    assert first == '# Trained with epochs = 100 and layout = "keypoint", which a preset does not set.'


def test_checkpoint_args_name_every_flag_of_both_copies_in_plain_types():
    config = preset("aggressive", pose_unit="radians", num_layers=6)
    args = checkpoint_args(config, replace(USE, min_yaw=30.0))
    for path, _ in COPIES.values():
        assert set(read_script(path).flags) - {"model_type"} <= set(args)
    assert all(type(value) in (str, int, float, bool, type(None)) for value in args.values())
    assert (args["num_layers"], args["num_decoder_layers"], args["scheduler_type"]) == (6, 6, "plateau")
    assert (args["data_dir"], args["min_yaw_angle"], args["max_yaw_angle"]) == ("train/datas/file", 30.0, None)
    assert (args["pose_unit"], args["layout"], args["lr"]) == ("radians", "keypoint", 2e-5)
    assert (args["warmup_lr"], args["cosine_eta_min"]) == (None, None)


def test_checkpoint_args_say_a_cosine_as_a_newer_copy_would():
    args = checkpoint_args(preset("recommended", scheduler_type="cosine", warmup_epochs=4), USE)
    assert (args["scheduler_type"], args["warmup_epochs"], args["cosine_eta_min"]) == ("cosine", 4, 1e-7)
    assert args["warmup_lr"] == pytest.approx(1e-5, rel=1e-12)  # 5e-5 / 5
