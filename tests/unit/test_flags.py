"""Reading what a script accepts, from its source."""

from pathlib import Path

import pytest
from stand_in_parsers import NEW_SCRIPT, OLD_SCRIPT, build_new, build_old

from face3d_tune.errors import ExportError
from face3d_tune.script.flags import DOCUMENTED, UNKNOWN, Flag, read_script


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
    assert flags == {"lr": Flag(name="lr", default=UNKNOWN)}
    assert not marker.exists()


def test_dashes_aliases_and_a_destination_all_lead_to_the_flag(tmp_path):
    flags = reading(
        tmp_path,
        "p.add_argument('-b', '--batch-size', '--bs', type=int, default=16)",
        "p.add_argument('--learning-rate', dest='lr', default=-1.5)",
        "p.add_argument('positional')",
        "p.add_argument('-q')",
    )
    batch = Flag(name="batch-size", default=16)
    rate = Flag(name="learning-rate", default=-1.5)
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
    assert flags["plain"] == Flag(name="plain", takes_value=False, default=False)
    assert flags["always"] == Flag(name="always", takes_value=False, default=True)
    assert flags["somehow"] == Flag(name="somehow", takes_value=False, default=UNKNOWN)
    assert flags["never"] == Flag(name=None, takes_value=False, default=True, off_name="never")
    assert flags["both"] == Flag(name="both", takes_value=False, default=True, off_name="no-both")
    assert flags["use_amp"] == Flag(name="amp", takes_value=False, default=False, off_name="no-amp")
    assert flags["verbose"].takes_value is False


def test_flags_with_value_are_read_with_choices_and_defaults(tmp_path):
    flags = reading(
        tmp_path,
        "p.add_argument('--amp', type=str2bool, nargs='?', const=True, default=False)",
        "p.add_argument('--nhead', type=int, choices=(4, 8), required=True)",
        "p.add_argument('--layers', type=int, choices=range(1, 9), default=os.environ.get('LAYERS'))",
        "p.set_defaults(nhead=4, layers=6, elsewhere=1)",
    )
    assert flags["amp"] == Flag(name="amp", default=False)
    assert flags["nhead"] == Flag(name="nhead", default=4, choices=(4, 8), required=True)
    assert flags["layers"] == Flag(name="layers", default=6)
    assert set(flags) == {"amp", "nhead", "layers"}


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
