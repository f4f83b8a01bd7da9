"""docs/examples/train_pairs.py, the script of docs/your-script.md, trains, resumes, and splits people as documented."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from command_line import call
from users_repo import train

from face3d_tune.script.flags import read_script

DOCS = Path(__file__).parent.parent.parent / "docs"
SCRIPT = DOCS / "examples" / "train_pairs.py"


@pytest.fixture
def run(data_folder, tmp_path):
    """Run the script on small data; the validation cosine of every epoch that it printed."""

    def ran(*words):
        folders = ("--data_dir", data_folder, "--save_dir", tmp_path / "save", "--log_dir", tmp_path / "log")
        printed = train(SCRIPT, *folders, "--batch_size", 8, "--hidden", 16, *words)
        return [float(number) for number in re.findall(r"^Epoch .+ Val Cosine: (\S+),", printed, re.MULTILINE)]

    return ran


def test_it_learns(run):
    cosines = run("--epochs", 5, "--lr", 0.01, "--use_pose")
    assert len(cosines) == 5
    assert cosines[-1] > cosines[0]


def test_a_resumed_training_ends_with_the_numbers_of_an_uninterrupted_one(run, tmp_path):
    words = ("--scheduler_type", "none", "--seed", 7)
    whole = run("--epochs", 4, *words)
    assert run("--epochs", 2, *words) == whole[:2]
    assert run("--epochs", 4, *words, "--resume", tmp_path / "save" / "last_model.pth") == whole[2:]
    best = torch.load(tmp_path / "save" / "best_model.pth", weights_only=True)
    assert [round(cosine, 5) for cosine in best["history"]["val_cosine"]][-1] == max(whole)


def test_its_people_are_those_of_the_built_in_split(data_folder, data):
    parts = runpy.run_path(str(SCRIPT))["load"](data_folder)
    for part, pairs in data.parts.items():
        views = torch.tensor(data.video_features[[view for _, view in pairs]])
        assert torch.equal(parts[part][0].sort(0).values, views.sort(0).values), part


def test_its_flags_can_be_read():
    flags = read_script(SCRIPT).flags
    assert {"lr", "weight_decay", "seed", "resume", "save_dir", "epochs"} <= set(flags)
    assert flags["use_pose"].off_name == "no-use_pose"


def test_the_page_shows_the_ranges_that_the_command_writes(tmp_path):
    assert call("script", SCRIPT, "--no-run", "--out", "drafted.toml", cwd=tmp_path).code == 0
    drafted = {" ".join(line.split()) for line in (tmp_path / "drafted.toml").read_text(encoding="utf-8").splitlines()}
    page = (DOCS / "your-script.md").read_text(encoding="utf-8")
    shown = re.search(r"^    \[space\]\n((?:    .+\n)+)", page, re.MULTILINE)[1].splitlines()
    lines = [" ".join(line.split()).replace("use_pose =", "# use_pose =") for line in shown]  # which the page edits
    assert len(lines) == 10
    assert [line for line in lines if line not in drafted] == []
