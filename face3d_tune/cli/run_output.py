"""The output of `face3d-tune run`: for a person, or as JSON for a program."""

import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import click
from rich.cells import cell_len

from face3d_tune.analysis import recognising
from face3d_tune.analysis.likely_best import likely_best
from face3d_tune.cli.console import Console
from face3d_tune.cli.language import say, translate
from face3d_tune.cli.options import storage_words
from face3d_tune.cli.progress import JsonLines, SearchProgress, Tally
from face3d_tune.cli.result_tables import before_and_after, results_console
from face3d_tune.cli.run_heading import introduce, target_of
from face3d_tune.search.run_search import OpenSearch, View
from face3d_tune.search.search import Search
from face3d_tune.storage.database import Storage
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.exclusions import marked, read_trials
from face3d_tune.study.trials import best_trial


def view_of(*, quiet: bool, as_json: bool, data_dir: Path | None) -> View:
    """Return the view of a search in the requested form."""
    console = Console(stderr=True, quiet=quiet or as_json)
    console.soft_wrap = not console.is_terminal  # a pipe gets whole lines, a terminal whole words
    return JsonView(console, click.echo) if as_json else TerminalView(console, data_dir)


class TerminalView:
    """The view for a person: progress on stderr, the result on stdout."""

    def __init__(self, console: Console, data_dir: Path | None) -> None:
        self._console, self._data_dir = console, data_dir
        self._started = time.monotonic()
        self._tally: Tally

    def warning(self, line: str) -> None:
        """Print a warning."""
        say(f"warning: {line}", err=True)

    def connecting(self, storage: Storage) -> None:
        """Print the server at once: it may take seconds to answer."""
        if storage.sqlite_file is None:
            self._console.print(f"connecting to {storage}")

    def opening(self, what: str) -> AbstractContextManager[object]:
        """Show what takes time while a new study is being prepared."""
        return self._console.status(what)

    def opened(self, opened: OpenSearch) -> SearchProgress:
        """Print the inputs and the plan of the search."""
        introduce(self._console, opened)
        if opened.requeued:
            self._console.print(f"{opened.requeued} trial(s) without a living worker: queued again")
        if opened.nothing_to_do:
            say(_nothing_to_do(opened.search))
        self._tally = _tally(opened)
        _follow(opened.search, self._tally)
        return SearchProgress(self._console, self._tally)

    def interrupted(self, opened: OpenSearch) -> None:
        """Print that nothing is lost, and how to continue."""
        search = opened.search
        done = f"{search.finished()} of {opened.search.queue.budget} finished trials"
        self._console.print(f"study {search.study.study_name!r} holds {done}; what was running is queued again")
        self._console.print("hint: run the same command to resume")

    def ended(self, opened: OpenSearch) -> None:
        """Print the result, and the commands to type next."""
        tally, seconds = _tally(opened), time.monotonic() - self._started
        before_and_after(opened.search.study)
        if not opened.nothing_to_do:
            self._console.print(f"{tally}; {seconds:.0f} s" if seconds < 60 else f"{tally}; {seconds / 60:.1f} minutes")
        _say_what_is_next(opened.search, opened.storage, self._data_dir)


class JsonView:
    """The view for a program: one JSON object a line on stdout."""

    def __init__(self, console: Console, write: Callable[[str], object]) -> None:
        self._console, self._write = console, write
        self._started = time.monotonic()
        self._tally: Tally
        self._lines: JsonLines

    def warning(self, line: str) -> None:
        """Print a warning on stderr."""
        say(f"warning: {line}", err=True)

    def connecting(self, storage: Storage) -> None:
        """Show nothing."""

    def opening(self, what: str) -> AbstractContextManager[object]:
        """Show nothing."""
        return nullcontext()

    def opened(self, opened: OpenSearch) -> JsonLines:
        """Print the event `started`: storage, objective, goal, done, engine, and what the study continues from.

        Also the winners of another study, and with the documented trainer as script how the built-in trainer compares.
        """
        self._tally = _tally(opened)
        _follow(opened.search, self._tally)
        self._lines = JsonLines(self._console, self._tally, self._write)
        follows: dict[str, object] = {"from": opened.stage.to_attr()} if opened.stage else {}
        if opened.winners:
            follows["like"] = [dict(trial.mark) for trial in opened.winners.trials]
        script = StudyAttr.script.get(opened.search.study.user_attrs)
        if script and "engine" in script:
            follows["engine_comparison"] = dict(script["engine"])
        done, engine = self._tally.done, opened.plan.engine
        aim = {"objective": opened.search.objective.name, "goal": opened.search.queue.budget}
        self._lines.say("started", storage=str(opened.storage), **aim, done=done, engine=engine, **follows)
        return self._lines

    def interrupted(self, opened: OpenSearch) -> None:
        """Show nothing: the exit code is enough."""

    def ended(self, opened: OpenSearch) -> None:
        """Print the event `finished`: done, value and trial of the best, seconds, and a warning if there is one.

        The warning says that the best recognises people no better than a baseline. Where the study knows the noise of
        its values, `likely_best` says what the best would likely reach again.
        """
        tally, study = _tally(opened), opened.search.study
        value, number = tally.best or (None, None)
        warning = recognising.warning(best_trial(study), study.user_attrs)
        more: dict[str, object] = {"warning": warning} if warning else {}
        if likely := likely_best(study):
            more["likely_best"] = asdict(likely)
        seconds = time.monotonic() - self._started
        self._lines.say("finished", done=tally.done, value=value, trial=number, seconds=seconds, **more)


def _tally(opened: OpenSearch) -> Tally:
    study = opened.search.study
    objective = opened.search.objective
    return Tally(study.study_name, opened.search.queue.budget, read_trials(study), objective)


def _follow(search: Search, tally: Tally) -> None:
    """Count what other workers end, and what people exclude, while the search runs."""
    search.exclusions.changed = tally.recount
    search.queue.read = lambda trials: tally.catch_up(marked(trials, search.exclusions.seen))


def _nothing_to_do(search: Search) -> str:
    name, finished = search.study.study_name, search.finished()
    if search.target_reached():
        return f"nothing to do: study {name!r} has reached the target, {target_of(search)}\n"
    done = f"study {name!r} already has {finished} of {search.queue.budget} trials"
    return f"nothing to do: {done}; to continue: --trials {finished + 50}\n"


def _say_what_is_next(search: Search, place: Storage, data_dir: Path | None) -> None:
    """Print the next commands, ready to paste."""
    if best_trial(search.study) is None:
        return
    storage = storage_words(place)
    study = [*storage, "--study-name", search.study.study_name]
    data = ["--data-dir", str(data_dir)] if data_dir else []
    say("\nNext, with this storage's URL in FACE3D_TUNE_STORAGE:" if place.holds_secret else "\nNext:")
    attrs = search.study.user_attrs
    script = StudyAttr.script.held_by(attrs)
    tested = script or StudyAttr.data.of(attrs)["split"] != "none"  # else there are no test people to confirm by
    again = "is it really better? trained again, with other seeds"
    why = again if script else "is it really better? trained again, on people never seen"
    steps = (
        (["export", *study], "the training command of the best trial"),
        *([(["confirm", *study, *data], why)] if tested else []),
        *([] if script else [(["train", *study, *data], "train it here: checkpoint, history, curve")]),
        (["dashboard", *storage], "look at every trial in the browser"),
    )
    lines = [f"  face3d-tune {shlex.join(words):<40}  # {translate(why)}" for words, why in steps]
    console = results_console()
    if console.is_terminal and max(map(cell_len, lines)) > console.width:
        lines = [f"  # {translate(why)}\n  face3d-tune {shlex.join(words)}" for words, why in steps]
    click.echo("\n".join(lines))
