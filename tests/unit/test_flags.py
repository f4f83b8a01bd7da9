"""Reading what a script accepts, from its source."""

import argparse
from pathlib import Path

import pytest
from stand_in_parsers import NEW_SCRIPT, OLD_SCRIPT, build_new, build_old

from face3d_tune.errors import ExportError
from face3d_tune.script.flags import DOCUMENTED, UNKNOWN, Flag, arguments, read_script, values


def reading(tmp_path, *lines, encoding="utf-8"):
    """The flags of a script with these lines, by destination and name."""
    path = tmp_path / "train_3d.py"
    path.write_bytes("\n".join(lines).encode(encoding))
    return read_script(path).flags


@pytest.mark.parametrize(("path", "build"), [(OLD_SCRIPT, build_old), (NEW_SCRIPT, build_new)], ids=["old", "new"])
def test_what_is_read_is_what_argparse_knows(path, build):
    script = read_script(path)
    actions = {action.dest: action for action in build()._actions if action.dest != "help"}
    assert script.path == str(path)
    assert list(script.flags) == list(actions)
    for name, action in actions.items():
        expected = Flag(
            name=name,
            takes_value=action.nargs != 0,
            default=action.default,
            choices=tuple(action.choices) if action.choices else None,
            kind="switch" if action.nargs == 0 else action.type.__name__,
        )
        assert script.flags[name] == expected


def test_the_documented_script_has_the_flags_of_the_old_copy_and_only_defaults_that_are_certain():
    old = read_script(OLD_SCRIPT).flags
    assert DOCUMENTED.path == "train_transformer3D/train_3d.py"
    assert set(DOCUMENTED.flags) == set(old)
    for name, flag in DOCUMENTED.flags.items():
        assert flag.takes_value == old[name].takes_value
        assert flag.default in (UNKNOWN, old[name].default)
    assert DOCUMENTED.flags["data_dir"].default == "train/datas/file"
    assert DOCUMENTED.flags["loss_type"].choices == ("mse", "cosine", "combined")
    assert DOCUMENTED.flags["use_pose_attention"].default is False
    assert DOCUMENTED.flags["lr"].default is UNKNOWN


def test_a_script_is_never_run(tmp_path):
    marker = tmp_path / "was-run"
    flags = reading(
        tmp_path,
        f"open({str(marker)!r}, 'w').close()",
        "raise SystemExit('the script was run')",
        "parser.add_argument('--lr', type=float, default=launch())",
    )
    assert flags == {"lr": Flag(name="lr", default=UNKNOWN, kind="float")}
    assert not marker.exists()


def test_a_destination_that_only_running_the_script_would_show_is_taken_from_the_name(tmp_path):
    assert list(reading(tmp_path, "p.add_argument('--hidden-size', dest=NAME)")) == ["hidden_size"]


def test_dashes_aliases_and_a_destination_all_lead_to_the_flag(tmp_path):
    flags = reading(
        tmp_path,
        "p.add_argument('-b', '--batch-size', '--bs', type=int, default=16)",
        "p.add_argument('--learning-rate', dest='lr', default=-1.5)",
        "p.add_argument('positional')",
        "p.add_argument('-q')",
    )
    batch = Flag(name="batch-size", default=16, kind="int")
    rate = Flag(name="learning-rate", default=-1.5, kind="float", false="")
    assert flags == {"batch_size": batch, "bs": batch, "lr": rate, "learning_rate": rate}


def test_flags_without_value_say_what_they_can_set(tmp_path):
    flags = reading(
        tmp_path,
        "import argparse",
        "p.add_argument('--plain', action='store_true')",
        "p.add_argument('--always', action='store_true', default=True)",
        "p.add_argument('--somehow', action='store_true', default=FLAGS['x'])",
        "p.add_argument('--never', action='store_false')",
        "p.add_argument('--both', action=argparse.BooleanOptionalAction, default=True)",
        "p.add_argument('--amp', action='store_true', dest='use_amp')",
        "p.add_argument('--no-amp', action='store_false', dest='use_amp')",
        "p.add_argument('-v', '--verbose', action='count')",
    )
    assert flags["plain"] == Flag(name="plain", takes_value=False, default=False, kind="switch")
    assert flags["always"] == Flag(name="always", takes_value=False, default=True, kind="switch")
    assert flags["somehow"] == Flag(name="somehow", takes_value=False, default=UNKNOWN, kind="switch")
    assert flags["never"] == Flag(name=None, takes_value=False, default=True, off_name="never", kind="switch")
    assert flags["both"] == Flag(name="both", takes_value=False, default=True, off_name="no-both", kind="switch")
    assert flags["use_amp"] == Flag(name="amp", takes_value=False, default=False, off_name="no-amp", kind="switch")
    assert "no_amp" not in flags  # it is use_amp = false
    assert flags["verbose"].takes_value is False
    assert flags["verbose"].kind == "other"


def test_flags_with_value_are_read_with_choices_and_defaults(tmp_path):
    flags = reading(
        tmp_path,
        "p.add_argument('--amp', type=str2bool, nargs='?', const=True, default=False)",
        "p.add_argument('--nhead', type=int, choices=(4, 8), required=True)",
        "p.add_argument('--layers', type=int, choices=range(1, 9), default=os.environ.get('LAYERS'))",
        "p.set_defaults(nhead=4, layers=6, elsewhere=1)",
    )
    assert flags["amp"] == Flag(name="amp", default=False, kind="bool")
    assert flags["nhead"] == Flag(name="nhead", default=4, choices=(4, 8), required=True, kind="int")
    assert flags["layers"] == Flag(name="layers", default=6, kind="int")
    assert set(flags) == {"amp", "nhead", "layers"}


@pytest.mark.parametrize(
    ("keywords", "kind"),
    [
        ("type=int", "int"),
        ("type=float", "float"),
        ("type=str", "str"),
        ("type=bool", "bool"),
        ("type=str2bool", "bool"),
        ("type=utils.strtobool", "bool"),
        ("type=positive_int", "int"),
        ("type=pathlib.Path", "str"),
        ("type=lambda text: text == 'True', default=True", "bool"),
        ("type=lambda text: float(text), default=0.1", "float"),
        ("type=str, default=3", "str"),
        ("default=3", "int"),
        ("default=0.5", "float"),
        ("default='adam'", "str"),
        ("type=str, default='1e-4'", "float"),
        ("default='0.5'", "float"),
        ("default='11.8'", "str"),
        ("default=[0.5, 1.0], nargs='+'", "float"),
        ("choices=[8, 16]", "int"),
        ("", "str"),
    ],
)
def test_the_kind_of_a_flag_is_that_of_its_type_else_of_its_default_or_choices(tmp_path, keywords, kind):
    assert reading(tmp_path, f"p.add_argument('--x', {keywords})")["x"].kind == kind


def test_a_number_that_the_source_has_as_text_is_a_number(tmp_path):
    read = reading(tmp_path, "p.add_argument('--lr', default='1e-4')", "p.add_argument('--n', type=int, default='3')")
    assert (read["lr"].default, read["n"].default) == (0.0001, 3)


def test_choices_that_only_running_the_script_would_show_are_unknown(tmp_path):
    assert reading(tmp_path, "p.add_argument('--x', choices=list(MODELS))")["x"].choices is None


def parsed(tmp_path, declaration, value):
    """What argparse gives a script that gets this value, by the arguments for it."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    exec(declaration, {"p": parser, "argparse": argparse, "str2bool": lambda text: text.lower() in ("true", "1")})
    path = tmp_path / "train_3d.py"
    path.write_text(declaration)
    return parser.parse_args(arguments(read_script(path), "x", value)).x


@pytest.mark.parametrize(
    ("keywords", "value"),
    [
        ("type=float", 0.1),
        ("type=float", -1e-05),  # alone, argparse would take -1e-05 for a flag
        ("type=float", float("inf")),
        ("type=int", -3),
        ("type=str", "-a b"),
        ("type=str", "数据"),
        ("type=str2bool", True),
        ("type=str2bool", False),
        ("type=bool, default=True", False),  # for which "False" is true
        ("type=bool", True),
        ("type=float, nargs='+'", [0.5, -1e-05]),
        ("type=int, nargs='*'", []),
        ("type=int, action='append'", [1, -2]),
        ("type=int, choices=[4, 8]", 8),
        ("action='store_true'", True),
        ("action='store_true'", False),
        ("action='store_false'", False),
        ("action='store_false'", True),
        ("action=argparse.BooleanOptionalAction, default=True", False),
    ],
)
def test_argparse_reads_back_the_value_that_arguments_type(tmp_path, keywords, value):
    assert parsed(tmp_path, f"p.add_argument('--x', {keywords})", value) == value


@pytest.mark.parametrize(
    ("keywords", "value", "reason"),
    [
        ("choices=[4, 8], type=int", 6, "--x takes only 4, 8"),
        ("action='store_true', default=True", False, "--x is True by default and no flag undoes that"),
        ("action='store_true'", 1, "--x takes no value"),
        ("action='count'", 2, "--x takes no value"),
    ],
)
def test_a_value_that_no_flag_can_say_has_a_reason(tmp_path, keywords, value, reason):
    path = tmp_path / "train_3d.py"
    path.write_text(f"p.add_argument('--x', {keywords})")
    assert arguments(read_script(path), "x", value) == reason
    assert arguments(read_script(path), "y", value) == f"{path} has no --y"


def test_the_arguments_of_a_command_are_read_back_as_values(tmp_path):
    path = tmp_path / "train_3d.py"
    path.write_text(
        "p.add_argument('--learning-rate', '--lr', dest='rate', type=float)\n"
        "p.add_argument('--sizes', type=int, nargs='+')\n"
        "p.add_argument('--tag', action='append')\n"
        "p.add_argument('--amp', action='store_true')\n"
        "p.add_argument('--no_bias', dest='bias', action='store_false')\n"
        "p.add_argument('--debug', type=str2bool)\n"
        "p.add_argument('--data_dir')\n"
    )
    words = "data --learning-rate=-1e-5 --sizes 8 16 --amp --no_bias --tag a --tag b --debug false --data_dir x y"
    found, rest = values(read_script(path), [*words.split(), "--elsewhere", "3", "-v", "--sizes", "x"])
    assert found == {
        **{"rate": -1e-5, "sizes": [8, 16], "amp": True, "bias": False, "tag": ["a", "b"]},
        **{"debug": False, "data_dir": "x"},
    }
    assert rest == ["data", "y", "--elsewhere", "3", "-v", "--sizes", "x"]


def test_a_parser_that_an_imported_file_builds_is_read_there(tmp_path):
    (tmp_path / "options.py").write_text("p.add_argument('--lr', type=float, default=0.1)\n")
    flags = reading(tmp_path, "from options import parser", "args = parser.parse_args()")
    assert flags == {"lr": Flag(name="lr", default=0.1, kind="float")}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding):
    flags = reading(tmp_path, "p.add_argument('--data_dir', default='数据/文件')", encoding=encoding)
    assert flags["data_dir"].default == "数据/文件"


def test_another_encoding_is_read_by_its_cookie(tmp_path):
    flags = reading(tmp_path, "# -*- coding: gbk -*-", "p.add_argument('--data_dir', default='数据')", encoding="gbk")
    assert flags["data_dir"].default == "数据"


def test_an_odd_escape_in_a_string_is_no_warning(tmp_path):
    assert reading(tmp_path, r"p.add_argument('--data_dir', default='C:\data')")["data_dir"].default == r"C:\data"


def failing(path: Path):
    with pytest.raises(ExportError) as caught:
        read_script(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert failing(tmp_path / "none.py") == f"{tmp_path / 'none.py'} cannot be read: No such file or directory"
    assert failing(tmp_path).startswith(f"{tmp_path} cannot be read: ")


def test_a_syntax_error_is_told_with_its_line(tmp_path):
    path = tmp_path / "train_3d.py"
    path.write_text("x = 1\nprint 'hello'\n")
    assert failing(path).startswith(f"{path} is not Python: line 2: ")


@pytest.mark.parametrize(
    "content",
    [b"# \xff\n", b"\n\n\n# \xff\n", b"x = 'a\x00b'\n", b"# coding: klingon\n"],
    ids=["not UTF-8 in line 1", "not UTF-8 in line 4", "null byte", "cookie"],
)
def test_what_is_not_text_is_told(tmp_path, content):
    path = tmp_path / "train_3d.py"
    path.write_bytes(content)
    assert failing(path).startswith(f"{path} is not Python")


def test_a_script_without_add_argument_is_told(tmp_path):
    path = tmp_path / "train_3d.py"
    path.write_text("print('hello')\n")
    assert failing(path) == f'{path} has no add_argument("--…") call, so it takes no flags'


@pytest.mark.parametrize("line", ["import click", "from click import option"])
def test_a_script_with_another_parser_is_told_that_argparse_is_needed(tmp_path, line):
    path = tmp_path / "train_3d.py"
    path.write_text(f"{line}\n")
    with pytest.raises(ExportError) as failure:
        read_script(path)
    assert failure.value.hint == (
        "only flags of argparse can be read: write a short script with argparse that calls this one of click"
    )
