"""Random files and values of persons and their scripts: each is read, or refused by an error for users.

Every example follows from its seed, so a failure names the one to try again.
"""

import json
import pickle
import random
import string
import tomllib
import warnings
from collections import OrderedDict, defaultdict, deque

import click
import numpy as np
import optuna
import pytest
import tomli_w
import torch
from command_line import call
from fake_data import write_data

from face3d_tune.cli.run import run
from face3d_tune.data import face_data
from face3d_tune.data.files import SIDES
from face3d_tune.errors import TuneError
from face3d_tune.script import draft, guesses, study_file
from face3d_tune.script.draft import Draft
from face3d_tune.script.first_epoch import first_epoch
from face3d_tune.script.flags import arguments, read_script, values
from face3d_tune.script.running.numbers import Numbers
from face3d_tune.script.running.output_text import OutputText
from face3d_tune.search.algorithms import make_pruner, make_sampler
from face3d_tune.study import space as space_module
from face3d_tune.study import study_file as trainer_study_file

pytestmark = pytest.mark.slow

SEEDS = range(10)


def words(text):
    """Return the words of a text."""
    return text.split()


WORDS = (
    *words("lr min_lr dropout weight_decay epochs seed save_dir resume batch-size d.model warmup num_layers patience"),
    *words("cosine_weight temperature margin momentum gamma eval_every amp no-amp data_dir beta1 学习率 a'b - help"),
    *("label_smoothing", "lr_scheduler", "x y", "", 'a"b'),
)
NUMBERS = (
    *(0, 1, -1, 2, 7, 8, 32, 64, 100, 10**9, 2**53, 2**63, 10**30, 10**400, True, False),
    *(0.0, -0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0, 1.5, -0.5, 1e-4, 3e-5, 1e-8, 1e-300, 5e-324, 1e300, 1e308),
    *(float("inf"), float("-inf"), float("nan")),
)
ODD_TEXT = (
    *("", " ", "C:\\data", "\\x", "a\nb", "a\tb", "\x00", "\x1b[31m", "\u2028", "\ud800", "\u202e", "训练", "é", "🙂"),
    *words("' \" 0.5 1e-4 nan # = --lr -1 { } True none / .. ../.. ~ * %s {0}"),
)


FILE_NAMES = ("", " 3D", "\n[x]", "训练", "\udcff", "'", '"', "#", "\\n", "\x1b[31m")


def value_of(draw, depth=0):
    """Draw a value that JSON, TOML or Python may hold."""
    kind = draw.randrange(8 if depth < 3 else 4)
    if kind < 2:
        return draw.choice(NUMBERS)
    if kind == 2:
        return draw.choice((*ODD_TEXT, *WORDS))
    if kind == 3:
        return None
    count = draw.randrange(4)
    if kind < 6:
        return [value_of(draw, depth + 1) for _ in range(count)]
    return {draw.choice((*WORDS, *ODD_TEXT)): value_of(draw, depth + 1) for _ in range(count)}


def source_of(draw):
    """Draw the source of an argparse script."""
    lines = ["import argparse", "p = argparse.ArgumentParser()"]
    for _ in range(draw.randrange(1, 9)):
        words = [repr(draw.choice(("--", "--", "--", "--", "-", "")) + draw.choice(WORDS))]
        if draw.random() < 0.2:
            words.append(repr("--" + draw.choice(WORDS)))
        if draw.random() < 0.8:
            default = draw.choice(NUMBERS) if draw.random() < 0.7 else value_of(draw)
            words.append(f"default={default!r}".replace("inf", draw.choice(("1e999", "float('inf')"))))
        for name, choices in (
            (
                "type",
                ("int", "float", "str", "bool", "lambda x: x", "positive_int", "pathlib.Path", "None", "1", "'int'"),
            ),
            (
                "action",
                ("'store_true'", "'store_false'", "argparse.BooleanOptionalAction", "'append'", "'count'", "Mine", "3"),
            ),
            ("nargs", ("'+'", "'*'", "'?'", "2", "None", "N")),
            ("dest", ("'lr'", "'other'", "'a.b'", "''", "3", "'no-amp'")),
            ("required", ("True", "False", "X", "1")),
            (
                "choices",
                (repr(value_of(draw)), repr([value_of(draw) for _ in range(3)]), "{'a', 'b'}", "range(3)", "{}"),
            ),
        ):
            if draw.random() < 0.2 or (name == "type" and draw.random() < 0.6):
                words.append(f"{name}={draw.choice(choices)}")
        lines.append(f"p.add_argument({', '.join(words)})")
    if draw.random() < 0.3:
        lines.append(f"p.set_defaults(lr={value_of(draw)!r}, amp={value_of(draw)!r})")
    return "\n".join(lines) + "\n"


def arguments_of(draw):
    return [draw.choice(("--", "--", "")) + draw.choice((*WORDS, *ODD_TEXT)) for _ in range(draw.randrange(4))]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_draft_of_any_script_reads_back_or_is_refused(tmp_path, seed):
    draw = random.Random(seed)
    for place in range(8):
        path = tmp_path / f"train{place}{draw.choice(FILE_NAMES)}.py"
        path.write_text(source_of(draw), encoding="utf-8", errors="surrogatepass")
        out = tmp_path / f"study{draw.choice(FILE_NAMES)}.toml"
        try:
            script = read_script(path)
            read, _ = values(script, arguments_of(draw))
            for name, value in read.items():
                arguments(script, name, value)
            text = draft.write(Draft(out, script, guesses.plan(script, arguments_of(draw)), None, None))
        except TuneError:
            continue
        out.write_text(text, encoding="utf-8")
        file = study_file.read(out)
        file.distinct_presets()
        file.stored()
        file.settings()


def line_of(draw):
    """Draw a line that a script may print."""
    parts = []
    for _ in range(draw.randrange(1, 7)):
        name = draw.choice((*WORDS, "Epoch", "epoch", "val_loss", "Val/Cosine", "验证损失", "best", "train"))
        number = draw.choice(NUMBERS)
        texts = (
            *(f"{name}: {number}", f"{name}={number}", f"{name} {number}/{number}", f"{number}%|", name),
            *(f"tensor({number})", f"第 {number} 轮", "9" * draw.randrange(1, 6000), f"{{'{name}': {number}}}"),
            *(repr(value_of(draw)), json.dumps(value_of(draw)), draw.choice(ODD_TEXT)),
            "".join(draw.choices(string.printable, k=draw.randrange(20))),
        )
        parts.append(draw.choice(texts))
    return draw.choice((", ", " ", "\t", " | ", "")).join(parts)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_output_is_read(tmp_path, seed):
    draw = random.Random(seed)
    numbers, text = Numbers(tmp_path), OutputText()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            data = (line_of(draw) + draw.choice(("\n", "\r", "\r\n", ""))).encode("utf-8", "surrogatepass")
            if draw.random() < 0.1:
                data = draw.randbytes(draw.randrange(10))
            printed = text.add(data)
            numbers.hear(printed)
            first_epoch([], printed)
        numbers.look(ended=True)
    for key in numbers.curves():
        numbers.steps(*key)
    numbers.repeated()


class Plain:
    """An object of a class of the script's own."""

    def __init__(self, value):
        self.value = value


class List(list):
    """A list of the script's own."""


class Dict(dict):
    """A dict of the script's own."""


def stored_of(draw, depth=0):
    """Draw what a script may store in a checkpoint."""
    inner = lambda: stored_of(draw, depth + 1)  # noqa: E731
    several = [] if depth > 2 else [inner() for _ in range(draw.randrange(3))]
    named = {draw.choice((*WORDS, 1, 0.5, None, ("a", 1))): each for each in several}
    array = np.array
    kinds = (
        *(lambda: draw.choice(NUMBERS), lambda: draw.choice(ODD_TEXT[:9]), lambda: several, lambda: named),
        *(lambda: tuple(several), lambda: {1, 2}, lambda: b"bytes", lambda: complex(1, 2), lambda: Plain(several)),
        *(lambda: deque(several, 5), lambda: OrderedDict(named), lambda: defaultdict(list, named)),
        *(lambda: List(several), lambda: Dict(named), lambda: torch.float32, lambda: torch.tensor(draw.random())),
        *(lambda: torch.zeros(3), lambda: torch.tensor(True), lambda: np.float64(0.5), lambda: np.str_("a")),
        *(lambda: np.datetime64("2026-01-01"), lambda: np.bytes_(b"x"), lambda: array(several[:1], dtype=object)),
        *(lambda: array(["a", "b"]), lambda: array([0.5, np.nan]), lambda: array(3), lambda: np.zeros((2, 0))),
        lambda: array([1, 2], dtype="datetime64[s]"),
    )
    return draw.choice(kinds)()


@pytest.mark.parametrize("seed", SEEDS)
def test_any_files_of_a_script_are_read(tmp_path, seed):
    draw = random.Random(seed)
    numbers = Numbers(tmp_path)
    for place in range(8):
        lines = [line_of(draw) for _ in range(draw.randrange(6))]
        table = [draw.choice((",", ";", "\t")).join(map(str, map(value_of, [draw] * 4))) for _ in range(5)]
        for name, text in (
            ("a.json", json.dumps(value_of(draw))),
            ("b.json", "\n".join(lines)),
            ("c.jsonl", "\n".join(json.dumps(value_of(draw)) for _ in lines)),
            ("d.csv", "\n".join(table)),
            ("e.csv", "\n".join(lines)),
            ("f.log", "\n".join(lines)),
        ):
            data = text.encode("utf-8", "surrogatepass")
            if draw.random() < 0.2:
                data = data[: draw.randrange(len(data) + 1)] + draw.randbytes(3)
            (tmp_path / name).write_bytes(data)
        content = {draw.choice((*WORDS, "epoch", "val_loss_history", "history")): stored_of(draw) for _ in range(4)}
        checkpoint = tmp_path / "last.pth"
        torch.save(content, checkpoint)
        if draw.random() < 0.3:
            data = bytearray(checkpoint.read_bytes())
            data[draw.randrange(len(data))] = draw.randrange(256)
            checkpoint.write_bytes(data)
        elif draw.random() < 0.1:
            checkpoint.write_bytes(pickle.dumps(content))
        numbers.look(ended=bool(place % 2))
    numbers.curves()


def toml_of(draw, depth=0):
    """Draw a value that TOML can hold."""
    value = value_of(draw, depth)
    return "".join(draw.choices(string.ascii_letters, k=3)) if value is None else without_none(value)


def without_none(value):
    if isinstance(value, list):
        return [without_none(each) for each in value if each is not None]
    if isinstance(value, dict):
        return {shown(key): without_none(each) for key, each in value.items() if each is not None}
    return shown(value)


def shown(value):
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


SCRIPT = """
p.add_argument('--epochs', type=int, default=80)
p.add_argument('--seed', type=int, default=0)
p.add_argument('--lr', type=float, default=1e-3)
p.add_argument('--heads', type=int, choices=[2, 4, 8], default=4)
p.add_argument('--opt', choices=['adam', 'sgd'], default='adam')
p.add_argument('--sizes', type=int, nargs='+', default=[64, 64])
p.add_argument('--amp', action='store_true')
p.add_argument('--cosine_weight', type=float, default=0.5)
p.add_argument('--save_dir')
p.add_argument('--resume')
"""
OF_THE_SCRIPT = """
[script]
path = "train.py"
metric = "Val/Cosine"
source = "tensorboard"
direction = "maximize"
epochs_flag = "epochs"
[budget]
trials = 5
epochs = 7
[fixed]
sizes = [1, 2]
[space]
lr = { low = 1e-4, high = 1e-2, scale = "log" }
opt = ["adam", "sgd"]
[presets.mine]
lr = 1e-3
"""
OF_THE_TRAINER = """
[study]
presets = ["recommended"]
[budget]
trials = 5
epochs = 7
[sampler]
name = "tpe"
n_startup_trials = 8
[pruner]
name = "shape"
n_warmup_steps = 5
[fixed]
dropout = 0.1
[space]
lr = { low = 1e-6, high = 1e-2, scale = "log" }
num_layers = { low = 1, high = 6 }
[presets.mine]
lr = 1e-3
"""
KEYS = words("""
low high scale name presets lr num_layers nhead d_model width batch_size loss_type epochs use_mixed_precision opt heads
use_spatial_attention sizes amp time_limit python checkpoint resume_flag folder_flags environment start_in arguments
keep_lowest objective description path metric seed_flag trials n_startup_trials n_warmup_steps chance cosine_weight
mse_weight weight_decay
""")
TABLES = ("script", "study", "budget", "fixed", "space", "presets", "sampler", "pruner")
VALUES = words("""
log linear adam sgd tpe random cmaes shape median hyperband none recommended baseline lr resume save_dir 8h
99999999999h train.py maximize tensorboard identity combined pose *
""")


def changed_toml(draw, text):
    """Change a few values of a study file at random."""
    content = tomllib.loads(text)
    for _ in range(draw.randrange(1, 4)):
        table = content.setdefault(draw.choice(TABLES), {})
        for _ in range(draw.randrange(3)):
            inner = [each for each in table.values() if isinstance(each, dict)] if isinstance(table, dict) else []
            table = draw.choice(inner) if inner and draw.random() < 0.7 else table
        if not isinstance(table, dict):
            continue
        key = draw.choice([*table, draw.choice(KEYS)])
        value = toml_of(draw) if draw.random() < 0.5 else draw.choice(VALUES)
        if draw.random() < 0.25:
            ends = draw.choice((NUMBERS, NUMBERS, VALUES, (*NUMBERS, *VALUES)))
            value = {"low": draw.choice(ends), "high": draw.choice(ends), "scale": draw.choice(("log", "linear"))}
        table[key] = [draw.choice((*VALUES, *NUMBERS)) for _ in range(3)] if draw.random() < 0.1 else value
    if draw.random() < 0.05:
        content[draw.choice((*TABLES, *WORDS))] = toml_of(draw)
    return tomli_w.dumps(content)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_study_file_is_read_or_refused(tmp_path, seed):
    draw = random.Random(seed)
    (tmp_path / "train.py").write_text(SCRIPT)
    path = tmp_path / "study.toml"
    for _ in range(12):
        path.write_text(changed_toml(draw, OF_THE_TRAINER), encoding="utf-8")
        try:
            file = trainer_study_file.read(str(path))
            algorithms(file)
            for layout in ("keypoint", "pose"):
                bound = file.bind(layout, 16, file.epochs)
                bound.check(100)
                bound.distinct_presets()
                searched(bound.space)
        except TuneError:
            pass
        path.write_text(changed_toml(draw, OF_THE_SCRIPT), encoding="utf-8")
        try:
            file = study_file.read(path)
            algorithms(file)
            file.distinct_presets()
            json.dumps([file.stored(), file.settings()])
            searched(file.space)
        except TuneError:
            pass


def algorithms(file):
    make_sampler(file, 1)
    make_pruner(file)


def searched(space):
    """Store a space, and draw from it as a search does."""
    assert space_module.from_stored(json.loads(json.dumps(space_module.to_stored(space)))) == space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(1))
    for _ in range(2):
        trial = study.ask()
        for name, row in space.items():
            value = space_module.suggest(trial, name, row)
            space_module.neighbour(row, value, random.Random(1))


SHAPES = (
    (),
    (0,),
    (3,),
    (1, 1),
    (12, 16),
    (72, 16),
    (72, 0),
    (0, 16),
    (72, 5, 3),
    (12, 5, 3),
    (72, 3, 5),
    (2, 2, 2, 2),
    (72, 17),
)
DTYPES = ("f4", "f8", "f2", ">f4", "i4", "u1", "?", "c8", "U3", "S3", "M8[s]", "m8[s]", "O", "V4", "f4,i4", "g")


def array_of(draw):
    """Draw an array as a person may have saved it."""
    shape, dtype = draw.choice(SHAPES), draw.choice(DTYPES)
    array = np.zeros(shape, dtype=dtype)
    if array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            array = np.random.default_rng(draw.randrange(99)).normal(size=shape).astype(dtype)
            if array.size and draw.random() < 0.4:
                array.flat[draw.randrange(array.size)] = draw.choice((np.nan, np.inf, -np.inf, 1e38, 1e-45, 0.0))
            array = array * draw.choice((1, 1, 1e30, 1e-30, 0))
    if array.dtype.kind == "O" and array.size:
        array.flat[0] = draw.choice((None, "x", [1], Plain(1)))
    return np.asfortranarray(array) if draw.random() < 0.3 else array


def metadata_of(draw, content):
    """Change a metadata file at random."""
    for _ in range(draw.randrange(1, 4)):
        key = draw.choice((*content, "pose_unit", "standard_info", "x"))
        value = content.get(key)
        if isinstance(value, list) and value and draw.random() < 0.7:
            row = draw.randrange(len(value))
            value[row] = draw.choice(
                ({"person_name": draw.choice(ODD_TEXT)}, value_of(draw), [draw.choice(NUMBERS)] * 3)
            )
        elif draw.random() < 0.3:
            content[key] = draw.choice(("radians", "degrees", {"standard_scale": draw.choice(NUMBERS)}))
        else:
            content[key] = value_of(draw)
    data = json.dumps(content, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    return data[: draw.randrange(len(data))] if draw.random() < 0.05 else data


@pytest.mark.parametrize("seed", SEEDS)
def test_any_data_folder_is_read_or_refused(tmp_path, seed):
    draw = random.Random(seed)
    folder = write_data(tmp_path / "data")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(4):
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        for _ in range(draw.randrange(1, 4)):
            side = draw.choice(SIDES)
            name = f"{side}_{draw.choice(('feature.npy', 'keypoints.npy', 'metadata.json', 'metadata.json'))}"
            if name.endswith("json"):
                (folder / name).write_bytes(metadata_of(draw, json.loads(whole[name])))
            elif draw.random() < 0.2:
                data = bytearray(whole[name])
                data[draw.randrange(128)] = draw.randrange(256)
                (folder / name).write_bytes(data)
            else:
                np.save(folder / name, array_of(draw), allow_pickle=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = face_data.inspect(
                folder, max_yaw=draw.choice((None, 0, 45)), turn_angle=draw.choice(("first", "third"))
            )
            json.dumps([str(each) for each in found.problems]).encode()
            assert (found.data is None) == bool(found.errors)
            if found.data is not None:
                for part in found.data.parts:
                    found.data.no_model_by_yaw(part)


OPTIONS = [each for each in run.params if isinstance(each, click.Option) and not each.is_flag and each.name != "on_end"]
TYPED = (
    *words("90s 8h 0 -1 1e400 99999999999h 999h 0.0000001s 1_000 default cuda:99 none auto batched identity 50% #x"),
    *words("sqlite://// sqlite:///x.db#y postgresql://a:b@localhost:1/x s3://b/p http://x json://x mailto://"),
    *("9" * 30, "9" * 5000, "a" * 199, "a" * 201, "missing.toml", "/dev/null", "\udcff", "sqlite:///\udcff"),
)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_value_of_an_option_is_taken_or_refused(tmp_path, seed):
    draw = random.Random(seed)
    for _ in range(15):
        words = []
        for option in draw.sample(OPTIONS, draw.randrange(1, 4)):
            value = draw.choice(
                (*TYPED, *(each for each in ODD_TEXT if each not in ("\x00", "\ud800")))
            )  # no argument has
            words.append(f"{option.opts[0]}={value}")
        answer = call("run", "--data-dir=missing", "--storage=sqlite:///x.db", *words, cwd=tmp_path)
        assert answer.code in (1, 2), words
        assert "unexpected" not in answer.err, (words, answer.err)
