"""Whole commands in Chinese: no sentence is left in English, and nothing that a program reads changes."""

import json
import re
import shutil

import pytest
from command_line import call
from searches import TWO_PRESETS

# Names, values, units, and what README.zh-CN.md leaves in Latin letters.
NAMES = set(
    re.findall(
        r"\S+",
        """
        trial epoch worker lr deg rad GiB kB MiB CPU cpu GPU Optuna Python torch json toml numpy sqlalchemy optuna
        dashboard plain batched tpe none person split off quick default baseline recommended aggressive conservative
        quickstart sampled yaw first second third mse min AMP float32 face3d tune faces160 TOML URL Ctrl extrapolation
        random degrees radians fp16 bf16 CUDA best_model pth history curve svg train validation test args key val
        spatial pose
        """,
    )
)
STUDY = TWO_PRESETS + 'pose_unit = ["degrees", "radians"]\n'


def english(answer):
    """The runs of English words in what a command printed, without commands, options, paths, names and settings."""
    found = []
    for line in (answer.out + answer.err).splitlines():
        line = re.sub(
            r"`[^`]*`|^python .*|\d\S*|^  face3d-tune .*?  #|'[^']*'|\S*[/\\=_{}]\S*|--?[\w-]+(=\S+)?|s3://\S*",
            " · ",
            line,
        )
        words = [word for word in re.findall(r"[A-Za-z][\w+.-]*", line) if word.rstrip(".") not in NAMES]
        found += [line] if re.search(r"[A-Za-z]{2,}(?: [a-z]{2,}){2,}", line) or len(words) > 3 else []
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_folder):
    """A folder with a study file, data, and a search that was told in Chinese. Do not change it."""
    folder = tmp_path_factory.mktemp("chinese")
    (folder / "quick.toml").write_text(STUDY, encoding="utf-8")
    shutil.copytree(data_folder, folder / "faces")
    answer = call("run", "--lang", "zh", "--study", "quick.toml", "--data-dir", "faces", "--device", "cpu", cwd=folder)
    assert answer.code == 0, answer.err
    return folder, answer


def test_a_search_is_told_in_chinese(place):
    _, answer = place
    assert english(answer) == []
    assert re.search(
        r"^目标     验证集平均余弦；不用模型为 0\.\d{4}，岭回归为 0\.\d{4}，核岭回归为 0\.\d{4}$", answer.err, re.M
    )
    assert re.search(
        r"^#0 baseline        余弦 -?0\.\d{4}，rank-1 \d\.\d{3}（epoch \d / 2，训练结束，\d+ 秒）  目前最好$",
        answer.err,
        re.M,
    )
    assert re.search(r"^3 / 3 个 trial 已结束，其中 \d 个被剪枝；最好的余弦 .*\d+ 秒$", answer.err, re.M)
    assert "  # 最好的 trial 的训练命令" in answer.out


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--study", "quick.toml", "--data-dir", "faces", "--device", "cpu"],
        ["status"],
        ["confirm", "--seeds", "2", "--top", "1", "--device", "cpu"],
        ["confirm", "--rotate", "--top", "1", "--device", "cpu"],
        ["train", "--device", "cpu"],
        ["export"],
        ["export", "--data-dir", "elsewhere"],
        ["presets"],
        ["data", "check", "faces"],
        ["data", "sample", "sample"],
        ["doctor", "--data-dir", "faces"],
        ["report", "--lang", "zh"],
        ["copy", "sqlite:///face3d_tune.db", "sqlite:///other.db"],
        ["import", "trained", "--study", "quick.toml", "--data-dir", "faces", "--dry-run"],
    ],
    ids=" ".join,
)
def test_every_command_speaks_chinese(place, tmp_path, words):
    folder = tmp_path / "copy"
    shutil.copytree(place[0], folder)
    if words[0] == "import":
        assert call("train", "--device", "cpu", "--seed", "7", cwd=folder).code == 0
    answer = call(*words, cwd=folder, FACE3D_TUNE_LANG="zh")
    assert answer.code == 0, answer.err
    assert english(answer) == []
    assert words[0] == "export" or re.search("[\u4e00-\u9fff]", answer.out + answer.err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("runn", "错误：face3d-tune：没有名为 'runn' 的命令；是不是 'run'？\n提示：见 `face3d-tune --help`\n"),
        ("run --trails 3", "错误：没有选项 '--trails'。（是不是其中之一：'--trials', '--turn-angle'？）\n"),
        ("run --trials", "错误：选项 '--trials' 需要一个值。\n"),
        ("run --trials 0", "错误：'--trials' 的值无效：0 不在范围 x>=1 内。\n"),
        ("run --trials many", "错误：'--trials' 的值无效：'many' 不是整数。\n"),
        ("run --target high", "错误：'--target' 的值无效：'high' 不是数。\n"),
        (
            "run --timeout 5x",
            "错误：'--timeout' 的值无效：'5x' 不是时长；应为秒数，或带 s、m、h 的数，例如 8h，最多 1000h\n",
        ),
        ("run --split folds", "错误：'--split' 的值无效：'folds' 不是 'person', 'none' 之一\n"),
        ("run --split persn", "错误：'--split' 的值无效：'persn' 不是 'person', 'none' 之一；是不是 'person'？\n"),
        ("import", "错误：缺少参数 'PATH...'。\n"),
        (
            "data convert a b",
            "错误：没有 --pose-unit 或 --inputs，convert 什么也不改\n提示：给出其中一个，或两个都给\n",
        ),
        ("copy a b c", "错误：多余的参数（c）\n"),
        ("status --json=3", "错误：选项 '--json' 不带值。\n"),
        ("run --study nope", "错误：没有名为 'nope' 的研究\n提示：自带的有 default, "),
        ("run --study broken.toml", "错误：broken.toml: study.preset 不认识；是不是 'presets'？\n提示：可用的有 "),
        ("run --data-dir away", "错误：away：没有这个文件夹；应为包含 front_feature.npy, "),
        ("run --device tpu", "错误：--device tpu 不能用："),
        (
            "status --storage sqlite:///no.db",
            "错误：存储 sqlite:///no.db：文件不存在\n提示：用 `face3d-tune run` 创建，",
        ),
        ("train --trial 99", "错误：研究 'quick' 没有 trial 99\n提示：它有 0 到 2\n"),
        ("train --preset best", "错误：没有名为 'best' 的预设\n提示：现有 baseline, "),
        ("export --study-name quik", "错误：没有名为 'quik' 的研究；是不是 'quick'？\n提示：这个存储里有 quick\n"),
        ("confirm --baseline basline", "错误：--baseline：研究里没有名为 'basline' 的预设；是不是 'baseline'？\n"),
    ],
)
def test_a_mistake_is_answered_in_chinese(place, words, said):
    folder, _ = place
    (folder / "broken.toml").write_text('[study]\npreset = ["baseline"]\n', encoding="utf-8")
    answer = call(*words.split(), cwd=folder, FACE3D_TUNE_LANG="zh")
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith(said)


def test_a_language_that_does_not_exist_is_refused(tmp_path):
    answer = call("status", "--lang", "fr", cwd=tmp_path)
    assert answer.code == 2
    assert answer.err.startswith("error: Invalid value for '--lang'")
    assert call("status", cwd=tmp_path, FACE3D_TUNE_LANG="fr").code == 2


@pytest.mark.parametrize("words", ["status --json", "export", "export --format json", "export --format toml", "--help"])
def test_what_programs_read_and_help_are_the_same_in_both(place, words):
    english, chinese = (call("--lang", language, *words.split(), cwd=place[0]) for language in ("en", "zh"))
    assert english.out == chinese.out != ""


def test_events_of_a_search_are_the_same_in_both(place, tmp_path):
    shutil.copytree(place[0], tmp_path / "copy")
    words = ("run", "--study", "quick.toml", "--data-dir", "faces", "--device", "cpu", "--trials", "4", "--json")
    answer = call(*words, cwd=tmp_path / "copy", FACE3D_TUNE_LANG="zh")
    assert {"started", "trial_ended", "finished"} <= {json.loads(line)["event"] for line in answer.out.splitlines()}
    assert not re.search("[\u4e00-\u9fff]", answer.out)


@pytest.mark.parametrize(
    "words", ["status", "data check faces", "presets", "run --study quick.toml --data-dir faces --device cpu"]
)
def test_the_numbers_are_the_same_in_both(place, words):
    told = [call(*words.split(), "--lang", language, cwd=place[0]) for language in ("en", "zh")]
    english, chinese = (re.findall(r"\d+(?:\.\d+)?", answer.err + answer.out) for answer in told)
    assert sorted(english) == sorted(chinese)
    assert len(english) > 5


@pytest.mark.parametrize("words", ["status", "data check faces", "presets", "run --study nope", "export"])
def test_english_is_chosen_over_the_locale_and_not_translated(place, words):
    plain = call(*words.split(), cwd=place[0])
    chosen = call(*words.split(), "--lang", "en", cwd=place[0], FACE3D_TUNE_LANG="zh", LC_ALL="zh_CN.UTF-8")
    assert chosen == plain
    assert not re.search("[\u4e00-\u9fff]", plain.out + plain.err)
