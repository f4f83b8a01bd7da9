"""The words of a report in one language: sentences by key, and the form of numbers, names and times."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from face3d_tune.data.yaw_bands import label
from face3d_tune.report.blocks import Count, Runs, number, rich

Language = Literal["en", "zh"]

NOT_KNOWN = "–"
SCRIPT = "script"  # what a report on a study of the user's own script is about
_HTML = {"en": "en", "zh": "zh-CN"}


class Words:
    """The words of one language. A value is inserted as it is; a whole number may ask for a noun, `{trials:trial}`.

    Args:
        language: Of the sentences.
        about: What the report is about: the objective of the built-in trainer, or `script`. A sentence that differs has
            this in its key.
        values: For every sentence.
    """

    def __init__(self, language: Language, about: str = "cosine", **values: str) -> None:
        self._sentences, self._about, self._values = _read(language), about, values
        self.language, self.html = language, _HTML[language]

    def __call__(self, key: str, **values: object) -> Runs:
        """Return a sentence, with its strong words and code."""
        of_this = self._sentences.get(f"{key}_{self._about}")
        return rich(of_this or self._sentences[key], **{**self._values, **_counted(values)})

    def text(self, key: str, **values: object) -> str:
        """Return a sentence or label without styles."""
        return "".join(text for _, text in self(key, **values))

    def parameter(self, name: str) -> str:
        """Return the name of a parameter; a flag of a script keeps its own."""
        return name if self._about == SCRIPT else self._sentences.get(f"parameter_{name}", name)

    def axis(self, name: str) -> str:
        """Return the name of a parameter with its unit, if it has one."""
        unit = None if self._about == SCRIPT else self._sentences.get(f"unit_{name}")
        return f"{self.parameter(name)} ({unit})" if unit else self.parameter(name)

    def value(self, value: Any) -> str:
        """Return a parameter's value in words."""
        in_words = isinstance(value, bool) or (isinstance(value, str) and self._about != SCRIPT)
        word = self._sentences.get(f"value_{str(value).lower()}") if in_words else None
        return word or number(value)

    def preset(self, name: str | None) -> str:
        """Return the guide's own name of a preset, or that of a script's defaults; the user's presets keep theirs."""
        return self._sentences.get(f"preset_{name}_{self._about}") or self._sentences.get(f"preset_{name}", name or "")

    def methods(self, names: Sequence[str]) -> str:
        """List methods without training by their names in a study: `no model, ridge regression or kernel ridge`."""
        *first, last = (self.text(name.replace(" ", "_")) for name in names)
        return self.text("or").join(filter(None, (self.text("comma").join(first), last)))

    def band(self, band: str) -> str:
        """Return a range of |yaw| such as `15-45` with its unit."""
        return label(band)

    def duration(self, seconds: float) -> str:
        """Format seconds in the unit that fits."""
        if seconds < 120:
            return self.text("seconds", n=f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}")
        if seconds < 7200:
            return self.text("minutes", n=f"{seconds / 60:.0f}")
        return self.text("hours", n=f"{seconds / 3600:.1f}")


def _read(language: Language) -> dict[str, str]:
    return tomllib.loads(Path(__file__).with_name(f"{language}.toml").read_text(encoding="utf-8"))


def _counted(values: dict[str, object]) -> dict[str, object]:
    whole = {key: Count(value) for key, value in values.items() if type(value) is int}
    return values | whole
