"""A report from its first sentence to its last: its sections in order."""

from collections.abc import Sequence

from face3d_tune.report import confirmed, recognised, result, scripts, searching, training
from face3d_tune.report.blocks import Block, Document, Section, Table
from face3d_tune.report.content import Content
from face3d_tune.report.words import SCRIPT, Language, Words

_TERMS = (
    "cosine",
    "no_model",
    "ridge",
    "kernel_ridge",
    "trial",
    "preset",
    "epoch",
    "loss",
    "lr",
    "pruned",
    "validation",
    "test",
    "yaw",
)
_OF_RECOGNITION = ("rank1", "tar", "identity", "pooled")
_OF_SCRIPT = ("metric", "trial", "preset", "epoch", "pruned")


def tell(content: Content, language: Language) -> Document:
    """Compose the whole report in one language. A section without content is omitted."""
    say = words_of(content, language)
    keys = (*_TERMS, *(_OF_RECOGNITION if content.recognition else ()), *(("fold",) if content.folds > 1 else ()))
    keys = keys if content.script is None else _OF_SCRIPT
    terms = [(say.text(f"term_{term}"), say(f"means_{term}")) for term in keys]
    sections: dict[str, Sequence[Block]] = {
        "confirmed": confirmed.confirmed(content, say) if content.script is None else scripts.confirmed(content, say),
        "rotated": confirmed.rotated(content, say),
        "answer": [*recognised.warning(content, say), *result.answer(content, say)],
        "recognised": recognised.recognised(content, say),
        "compared": result.compared(content, say) if content.script is None else scripts.compared(content, say),
        "curves": result.curves(content, say),
        "yaw": result.by_yaw(content, say),
        "parameters": searching.parameters(content, say),
        "search": searching.search(content, say),
        "watch": training.watch(content, say),
        "command": training.command(content, say),
        "reproduce": training.reproduce(content, say),
        "terms": [Table((say.text("word"), say.text("meaning")), terms, numeric=False)],
    }
    return Document(
        language=say.html,
        title=say.text("title", study=content.study),
        subtitle=say.text("subtitle", made=time_of(content.made), version=content.versions["face3d_tune"]),
        contents=say.text("contents"),
        copy=(say.text("copy"), say.text("copied")),
        sections=[Section(name, say.text(f"title_{name}"), blocks) for name, blocks in sections.items() if blocks],
    )


def words_of(content: Content, language: Language) -> Words:
    """Return the words of a report in one language; of a script, the name of its metric stands in many of them."""
    if content.script is None:
        return Words(language, content.objective)
    better = Words(language).text(f"better_{content.direction}")
    return Words(language, SCRIPT, metric=content.objective, better=better)


def time_of(made: str) -> str:
    """Format a time: `2026-01-31 12:00 UTC+08:00`."""
    date, _, time = made.partition("T")
    return f"{date} {time[:5]}" + (f" UTC{time[5:]}" if time[5:] else "")
