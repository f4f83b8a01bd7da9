"""Whatever text a database holds, a note shows it as text: no heading, link, picture, formula or HTML comes of it."""

import json
import re
import shlex
from datetime import datetime

import pytest
from own_script import found_of
from stored_script import searched_script, study_of_script
from stored_study import attrs_of, confirmation_of, rotation_of, searched, study_of, trial_of

from face3d_tune.analysis.findings import find
from face3d_tune.dashboard.figures import figures
from face3d_tune.dashboard.markdown import block, plain, word
from face3d_tune.dashboard.notes import study_note, trial_note
from face3d_tune.report.render import report

EVIL = "x\n# y\r\n- *z* `c` | <b>v</b> [l](http://evil.example) ![p](q) $m$ ~~s~~ &amp; \u202e www.evil.org a@b.org"
RAW = re.compile(
    r"(?m)^# y|^- \*z|(?<!\\)\*z|(?<!\\)`c|(?<!\\)\| (?:\\)?<b|(?<!\\)<b>|(?<!\\)\[l|(?<!\\)\$m|(?<!\\)~|(?<!\\)&"
    r"|\u202e|://|www\.|@\w"
)


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        ("a\nb\r\n\tc", r"a\\nb\\r\\n\\tc"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("---", r"\---"),
        ("1. a", r"1\. a"),
        ("12) a", r"12\) a"),
        ("-0.5 and 1.5", "-0.5 and 1.5"),
        ("    code", "code"),
        ("*a* _b_ `c` [d](e) <f> |g| ~h~ $i$ &lt; \\", r"\*a\* \_b\_ \`c\` \[d\](e) \<f\> \|g\| \~h\~ \$i\$ \&lt; \\"),
        ("https://a.b www.a.b c@d.e", "https:\u2060//a.b www\u2060.a.b c@\u2060d.e"),
        ("结果\u3000二 é 👩\u200d🔬", "结果\u3000二 é 👩\u200d🔬"),
        ("a\u202eb\u2028c\0", r"a\\u202eb\\u2028c\\x00"),
        (5, "5"),
        (None, "None"),
    ],
)
def test_text_is_escaped_and_on_one_line(held, shown):
    # A backslash that stands for an unseen character is escaped as any other.
    assert plain(held) == shown


@pytest.mark.parametrize("name", ["faces", "it's", "a\nb", "a'b\\c\n\t", "结果\u202e", "-x; rm -rf /", "$(a)\n`b`"])
def test_a_name_in_a_command_is_one_word_on_one_line(name):
    quoted = word(name)
    assert quoted.isprintable()
    if name.isprintable():
        assert shlex.split(quoted) == [name]
    else:  # bash's notation, which has the escapes of Python and of C
        assert quoted.startswith("$'")
        assert quoted[2:-1].encode().decode("unicode_escape").encode("latin-1", "ignore").decode("utf-8", "ignore")


def test_a_command_with_backquotes_does_not_end_its_block():
    assert block("echo ```` --a") == "`````\necho ```` \\\n  --a\n`````"


def planted(value, *names):
    """The same with these texts in it made evil."""
    held = json.dumps(value)
    for name in names:
        assert f'"{name}"' in held
        held = held.replace(f'"{name}"', json.dumps(EVIL))
    return json.loads(held)


def outside_of_commands(note):
    return re.sub(r"(?m)^    .*$", "", re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", note))


def test_the_notes_of_a_study_whose_every_text_is_markdown_show_it_as_text():
    attrs = attrs_of()
    evil = {"effort": planted(attrs["effort"], "tpe", "median"), "data": {"source": EVIL}, "data_fingerprint": EVIL}
    evil |= {"confirmation": planted(confirmation_of(), "baseline", "quickstart")}
    evil |= {"rotation": planted(rotation_of(), "baseline", "recommended")}
    evil |= {"settings": attrs["settings"] | {"epochs": EVIL, "seed": EVIL}}
    trials = [*searched(), trial_of("COMPLETE", curve=[0.7], preset=EVIL, pose_unit="radians")]
    trials += [trial_of("FAIL", error=EVIL, cause=EVIL), trial_of("COMPLETE", curve=[0.1], best_epoch=EVIL)]
    found = find(study_of(*trials, name=EVIL, **evil))
    note = study_note(found)
    assert plain(EVIL) in note.splitlines()[0]
    notes = [note, *(trial_note(found, trial) for trial in found.notable)]
    for each in notes:
        assert RAW.search(outside_of_commands(each)) is None, each
    assert plain(EVIL) in "".join(notes[1:])


def test_the_notes_of_a_script_whose_every_text_is_markdown_show_it_as_text():
    study = study_of_script(
        *searched_script(), name=EVIL, script_confirmation=planted(found_of(), "quickstart", "defaults")
    )
    script = study.user_attrs["script"]
    study.set_user_attr("script", script | {"path": EVIL, "sources": {EVIL: EVIL}})
    study.set_user_attr("effort", planted(study.user_attrs["effort"], "tpe"))
    found = find(study)
    for note in (study_note(found), *(trial_note(found, trial) for trial in found.notable)):
        assert RAW.search(outside_of_commands(note)) is None, note


def test_a_figure_shows_names_as_text_too():
    trials = [*searched(), trial_of("COMPLETE", curve=[0.7], preset="<b>a</b> &amp;", pose_unit="radians")]
    trials += [trial_of("COMPLETE", curve=[0.8], pose_unit="radians", lr=2e-3)]
    drawn = json.dumps(figures(find(study_of(*trials))))
    assert "&lt;b&gt;a&lt;/b&gt; &amp;amp;" in drawn
    assert "<b>" not in drawn


def test_a_report_in_markdown_shows_an_escape_sequence_and_a_line_break_in_a_name_as_text_too():
    found = find(study_of(trial_of("COMPLETE", 0.7, preset="p\x1b[31m\n# q"), name="a\x1b]0;title\x07\nb"))
    outside = outside_of_commands(report(found, "md", "en", datetime(2026, 1, 1)))
    assert r"a\\x1b\]0;title\\x07 b" in outside
    assert r"p\\x1b\[31m \# q" in outside
    assert "\x1b" not in outside
