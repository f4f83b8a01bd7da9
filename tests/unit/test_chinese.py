"""The table of Chinese sentences is complete, and a line is translated as its entry says."""

import io
import re
from collections import Counter

import pytest
from optuna.trial import TrialState
from said import is_english, sentences, texts, untranslated

from face3d_tune.cli import language
from face3d_tune.cli.language import Template, choose, of_locale, padded, translate, width, word

SECTIONS = language.read()
APART = {"labels", "words", "composed", "click", "system"}  # not written in the source as a whole sentence
# Fragments that mean nothing alone: the table has the sentences that they become.
FRAGMENTS = {
    *("wire type 7", "a field ends after its message", "a varint of more than ten bytes"),  # caught, never printed
    "write to",
    "read from",
    "remove from",
    "cannot 7 7: 7",
    "study 7 7",
    "without 7",
    "face3d-tune baseline 1",
    "7 7 already",
    "with 7",
    "is 7",
    "holds 7 for 7",
    "The best trial 7.",
    "The checkpoint 7.",
    "7: model_state_dict 7; expected names and tensors",
}
KEPT = {"trial", "epoch", "dtype"}  # the same in both languages
VALUE = re.compile(r"\{(\w+)[!~=]?\}")


@pytest.fixture(autouse=True)
def _chinese(monkeypatch):
    monkeypatch.setattr(language, "_chosen", "zh")


def in_chinese(text):
    """A sentence of the source, or one that begins or ends in the middle of a line."""
    for form in (text, text.strip(" :;,()"), re.sub(r"^7(?=[a-z])", "", text)):
        for said in (translate(form), word(form)):
            if said != form:
                return said
    return text


def english_words(text):
    """Words of a text, without commands, options, paths and settings."""
    plain = re.sub(r"`[^`]*`|--[\w-]+( \w+)?|pip install.*", "", VALUE.sub("", text))
    return set(re.findall(r"(?<![\w./:-])[A-Za-z]{3,}(?![\w./=-])", plain))


def sections(*names):
    return [(english, chinese) for name in names for english, chinese in SECTIONS[name].items()]


ENTRIES = sections(*SECTIONS)
LEFT_IN_CHINESE = set().union(*(english_words(chinese) for _, chinese in ENTRIES))  # lr, epoch, TOML, …


def left_in_english(text):
    """The English words that stay, and that no Chinese sentence has; of a text that stays as it is, all of them."""
    said = in_chinese(text)
    return english_words(said) - (KEPT if said == text else LEFT_IN_CHINESE)


def test_every_sentence_of_the_package_has_a_chinese_one():
    missing = {
        f"{place}: {text}" for place, text in sentences() if text.strip() not in FRAGMENTS and left_in_english(text)
    }
    assert not missing, "add these to face3d_tune/cli/chinese.toml:\n" + "\n".join(sorted(missing))


def test_a_new_sentence_would_be_noticed():
    assert left_in_english("trial 7 was fed to the dog") == {"was", "fed", "the", "dog"}
    assert left_in_english("data  7") == {"data"}


def test_no_command_prints_past_the_translation():
    for place, text in untranslated():
        allowed = "Rich's RenderResult", "Rich's ConsoleOptions", "Rich's Console", "  face3d-tune 7  # 7"
        assert not is_english(text) or text in allowed[: 4 if place.startswith(("live.", "confirm.")) else 0], place


def test_no_value_gets_lost():
    """Every number of a sentence is in the Chinese one; the s of a plural is none."""
    for place, text in texts():
        said, plural = translate(text), r"(?<=[a-z])7"
        if said != text:
            wanted = Counter(re.findall(r"\d", re.sub(plural, "", text)))
            assert wanted <= Counter(re.findall(r"\d", said)), f"{place}: {text}: {said}"


def test_no_entry_is_left_that_nobody_says(monkeypatch):
    said = set()

    def filled(self, values, original=Template.filled):
        said.add(self)
        return original(self, values)

    monkeypatch.setattr(Template, "filled", filled)
    language._sentence.cache_clear()
    for _, text in texts():
        in_chinese(text)
    whole = {each for _, text in texts() for line in text.split("\n") for each in (line.strip(" ;:,()"), line.strip())}
    parts = {part for each in whole for part in (*re.split("; |: |, ", each), each.partition(": ")[2])}
    unused = [
        english
        for english, chinese in sections(*(SECTIONS.keys() - APART))
        if language.template(english, chinese) not in said and english not in whole | parts
    ]
    assert not unused, "remove these from face3d_tune/cli/chinese.toml, or move them to [composed]:\n" + "\n".join(
        unused
    )


def test_words_and_composed_lines_consist_of_words_that_the_package_says():
    known = {each for _, text in texts() for each in re.findall("[A-Za-z]+", text)}
    known |= {state.name.lower() for state in TrialState}
    for english, _ in sections("words", "composed", "labels"):
        assert set(re.findall("[A-Za-z]+", VALUE.sub("", english))) <= known, english


def test_both_sentences_have_the_same_placeholders():
    for english, chinese in ENTRIES:
        names, others = VALUE.findall(english), VALUE.findall(chinese)
        assert sorted(name for name in names if not name.startswith("_")) == sorted(others), english
        assert len(set(names)) == len(names), english
        assert "}{" not in english, f"{english}: two values without a text between them, of which one takes both"


def test_every_entry_is_found_before_others():
    """Its sentence, with a 7 for every value, becomes its Chinese one, not that of a more general entry."""
    for english, chinese in sections(*(SECTIONS.keys() - {"words", "labels"})):
        assert translate(VALUE.sub("7", english)) == VALUE.sub("7", chinese), english
    for english, chinese in sections("words"):
        assert word(english) == chinese


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("error: no study named 'x'", "错误：没有名为 'x' 的研究"),
        ("error: no study named 'x'; did you mean 'y'?", "错误：没有名为 'x' 的研究；是不是 'y'？"),
        ("  hint: see `face3d-tune status`", "  提示：见 `face3d-tune status`"),
        ("#3 sampled         failed, diverged", "#3 sampled         失败，发散"),
        (
            "#30 sampled        cosine 0.6514 (epoch 25 of 40, early_stopping, 20 s)  best so far",
            "#30 sampled        余弦 0.6514（epoch 25 / 40，早停，20 秒）  目前最好",
        ),
        (
            "#3 defaults        Val Loss 0.6514 (epoch 25 of 40, finished, 20 s)  best so far",
            "#3 defaults        Val Loss 0.6514（epoch 25 / 40，训练结束，20 秒）  目前最好",
        ),
        ("goal     val_loss, the lower the better", "目标     val_loss，越低越好"),
        (
            "3 of 9 trials finished, 0 of them pruned; best val_loss 0.3000, trial 2, -0.1000 on defaults",
            "3 / 9 个 trial 已结束，其中 0 个被剪枝；最好的 val_loss 0.3000，trial 2，比 defaults -0.1000",
        ),
        (
            "50 of 50 trials finished, 26 of them pruned; failed: 2 diverged, 1 out of memory; best cosine 0.6514, "
            "trial 30, +0.0544 on baseline; 9.4 minutes",
            "50 / 50 个 trial 已结束，其中 26 个被剪枝；失败：2 个发散，1 个内存不足；最好的余弦 0.6514，trial 30，"
            "比 baseline +0.0544；用时 9.4 分钟",
        ),
        (
            "trial 41 is better than baseline (the best preset) by 0.0487 (0.0264 to 0.0709); it is better than every "
            "preset.",
            "trial 41 比 baseline（最好的预设）好 0.0487（0.0264 到 0.0709）；它比每一个预设都好。",
        ),
        (
            "trial 1: 5 test people are too few for a verdict against ridge: +0.0084 (-0.0103 to +0.0272); no preset "
            "could be trained to compare it with.",
            "trial 1：测试人员只有 5 个，太少，无法与岭回归分出高下：+0.0084（-0.0103 到 +0.0272）；"
            "没有预设能训练出来与它比较。",
        ),
        (
            "video_metadata.json: poses: rows 3, 4 and 7 more rows: NaN or infinity; expected [yaw, pitch, roll], "
            "finite numbers (and 2 more problems)",
            "video_metadata.json：poses：第 3, 4 以及另外 7 行：NaN 或无穷大；应为[yaw, pitch, roll]，有限的数"
            "（以及另外 2 个问题）",
        ),
        (
            "#0 baseline        cosine 0.2322 (mean over 3 folds, 6 epochs, finished, 5 s)  best so far",
            "#0 baseline        余弦 0.2322（3 折平均，6 个 epoch，训练结束，5 秒）  目前最好",
        ),
        (
            "#4 sampled         cosine 0.2322 (fold 1, 1 epoch, raced out after fold 1, 5 s)",
            "#4 sampled         余弦 0.2322（第 1 折，1 个 epoch，第 1 折后淘汰，5 秒）",
        ),
        (
            "blend, 0.55 kernel ridge, rank-1 of 160: worse than ridge by 0.0385 (0.0136 to 0.0635)",
            "混合（核岭回归占 0.55），160 人中的 rank-1：比岭回归差 0.0385（0.0136 到 0.0635）",
        ),
        (
            "ensemble of 2 raises the cosine, but recognises people no better than ridge or kernel ridge.",
            "2 个的集成提高了余弦，但识别人并不比岭回归和核岭回归更好。",
        ),
        (
            "note: blend, 1.00 ridge: its weight was chosen on the people judged here, which flatters it",
            "说明：混合，岭回归占 1.00：权重是用这里被评估的人选的，所以它的成绩偏高",
        ),
        (
            "x.py trains here; it cannot express a = b: x.py has no --a; and 3 more",
            "x.py 能在这里训练；它无法表达 a = b: x.py 没有 --a；以及另外 3 个",
        ),
        ("error: a.npy and a.json exist already", "错误：a.npy 和 a.json 已存在"),
        ("script   train.py", "脚本     train.py"),
        (
            "engine   cpu; scripts at once: 2; threads of each: 1",
            "引擎     cpu；同时运行 2 个脚本，每个 1 个线程",
        ),
        ("storage a.db cannot be reached: the disk is on fire", "无法访问存储 a.db：the disk is on fire"),
        ("the disk is on fire", "the disk is on fire"),
        ('{"study": "no trials", "error": "missing"}', '{"study": "no trials", "error": "missing"}'),
        ("", ""),
    ],
)
def test_a_line_is_translated_and_what_the_table_lacks_stays_as_it_is(line, said):
    assert translate(line) == said


def test_a_long_line_of_another_program_takes_no_time():
    line = ", ".join(f"word {number}: another word; and more" for number in range(2000))
    assert translate(line) == line


def test_a_chinese_character_takes_two_columns():
    assert width("错误：a") == 7
    assert padded("验证", 6) == "验证  "
    assert translate("trial 1, seed 2         diverged: x").startswith("trial 1，种子 2 ")


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": ""}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en:zh"}, "en"),
        ({"LANG": "C", "LANGUAGE": "zh"}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale_as_for_gettext(environment, language):
    assert of_locale(environment, "linux") == language


@pytest.mark.parametrize(("name", "language"), [("zh_CN", "zh"), ("Chinese (Simplified)_China", "zh"), (None, "en")])
def test_on_windows_it_is_that_of_the_user(monkeypatch, name, language):
    monkeypatch.setattr("locale.getlocale", lambda category: (name, None))
    assert of_locale({}, "win32") == language


@pytest.mark.parametrize(
    ("arguments", "environment", "chosen"),
    [
        (["run"], {}, "en"),
        (["--lang", "zh", "run"], {}, "zh"),
        (["run", "--lang=zh"], {}, "zh"),
        (["run", "--lang", "en"], {"FACE3D_TUNE_LANG": "zh"}, "en"),
        (["run"], {"FACE3D_TUNE_LANG": "zh", "LANG": "en_US"}, "zh"),
        (["run"], {"FACE3D_TUNE_LANG": "en", "LANG": "zh_CN"}, "en"),
        (["run", "--lang"], {"LANG": "zh_CN"}, "zh"),
        (["run", "--lang", "fr"], {"LANG": "zh_CN"}, "zh"),
        (["export", "--", "--lang", "zh"], {}, "en"),
    ],
)
def test_the_option_counts_before_the_variable_and_the_variable_before_the_locale(arguments, environment, chosen):
    choose(arguments, environment)
    assert language._chosen == chosen


@pytest.mark.parametrize(("encoding", "chosen"), [("utf-8", "zh"), ("cp936", "zh"), ("ascii", "en"), ("cp1252", "en")])
def test_a_terminal_that_cannot_show_chinese_gets_english(monkeypatch, encoding, chosen):
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    choose(["run", "--lang", "zh"], {})
    assert language._chosen == chosen
