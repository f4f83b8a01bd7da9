"""The user attributes of studies and trials: each name and type once.

`TrialAttr.epochs_run.of(trial.user_attrs)` reads one. The names are stored: they never change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar, overload

from face3d_tune.config import Layout

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True)  # no slots: a generic object notes its type
class Attr(Generic[T]):
    """One user attribute; `key` is its stored name."""

    key: str

    def of(self, attrs: Mapping[str, Any]) -> T:
        """Return its value. Raises KeyError if it is not stored."""
        value: T = attrs[self.key]
        return value

    @overload
    def get(self, attrs: Mapping[str, Any]) -> T | None: ...

    @overload
    def get(self, attrs: Mapping[str, Any], default: D) -> T | D: ...

    def get(self, attrs: Mapping[str, Any], default: Any = None) -> Any:
        """Return its value, or the default if it is not stored."""
        return attrs.get(self.key, default)

    def held_by(self, attrs: Mapping[str, Any]) -> bool:
        """Return whether it is stored."""
        return self.key in attrs


class StoredGrowth(TypedDict):
    """A search space that grew by one parameter's range; it has either `before` or `value`."""

    parameter: str
    before: NotRequired[Mapping[str, Any]]  # Optuna's distribution as JSON, as `after`
    value: NotRequired[Any]  # of every trial until then, if the parameter was not searched
    after: Mapping[str, Any]
    at: str  # UTC, as ISO 8601
    by: str  # host and process of the worker


class StoredSettings(TypedDict):
    """The attribute `settings`: what all trials of a study share. An older study lacks the optional ones.

    A study of a script has neither layout nor folds, and no epochs if the script takes none.
    """

    study_file: str  # its name
    layout: Layout
    epochs: int  # of a trial, at most
    folds: NotRequired[int]  # 1 if missing
    objective: NotRequired[str]  # the cosine if missing; a number of a script
    seed: int
    fixed: Mapping[str, Any]  # parameters that are not searched
    space: Mapping[str, Any]  # Optuna's distribution of each searched parameter, as JSON, as it is now
    grown: NotRequired[Sequence[StoredGrowth]]  # how it grew, in order


class StoredWinner(TypedDict):
    """The attribute `like` of a trial: the trial of another study whose config it has."""

    study: str
    id: str | None  # of that study: tells it from another of the same name
    trial: int
    value: float  # there


class StoredScript(TypedDict):
    """The attribute `script`: the user's own script that a study searches."""

    path: str  # as the study file names it, from its folder
    sources: Mapping[str, str]  # sha256 of the script and of each Python file that it imports, by path
    metric: str  # the number that is a trial's value
    source: str  # where the script gives it: tensorboard, checkpoint, printed, json, csv
    direction: Literal["maximize", "minimize"]
    keep: str | None  # the number whose lowest or highest epoch the script keeps; None: the metric's best
    keep_direction: Literal["maximize", "minimize"]
    command: Sequence[str]  # python and script, before the flags
    seed_flag: str | None  # the flag that gets the trial's seed; None: the script has its own
    epochs_flag: str | None  # the flag that gets the epochs
    engine: NotRequired[Mapping[str, Any]]  # how the built-in trainer compares, if the script is the documented one
    # What another training of it needs, as the study file says it; missing: as the study file's default.
    arguments: NotRequired[Sequence[str]]  # more, before the flags
    folder_flags: NotRequired[Sequence[str]]  # flags that get folders of the training's own
    start_in: NotRequired[str | None]  # the folder to start in; None: the training's own
    environment: NotRequired[Mapping[str, str]]
    time_limit: NotRequired[float | None]  # of a training, in seconds
    resume_flag: NotRequired[str | None]
    checkpoint: NotRequired[str]  # glob of the checkpoint that the resume flag takes


class Effort(TypedDict, total=False):
    """The attribute `effort`: how the last run searches, which the next one may change."""

    trials: int  # finished trials, in all
    target: float | None  # value that ends the search
    target_epochs: int  # in a row that must reach it; 1 if missing
    sampler: str  # its name, as the next one
    pruner: str


class StoredStop(TypedDict):
    """The attribute `stop`: the last request to stop the search."""

    id: str
    by: str  # user and host
    at: str  # UTC, as ISO 8601
    now: bool  # running epochs are cut off
    over: bool  # a later run has begun


class StoredExclusion(TypedDict):
    """A row of the attribute `excluded`: who took a trial out of the study, when and why."""

    by: str  # user and host
    at: str  # UTC, as ISO 8601
    reason: str  # may be empty


class StudyAttr:
    """The user attributes of a study."""

    id = Attr[str]("id")  # tells a study from another of the same name
    data = Attr[Mapping[str, Any]]("data")  # where the data came from, and which pairs were chosen
    data_fingerprint = Attr[str]("data_fingerprint")
    settings = Attr[StoredSettings]("settings")
    script = Attr[StoredScript]("script")  # of a study that searches a script of the user's own
    versions = Attr[Mapping[str, str]]("versions")  # of the programs that made the study
    effort = Attr[Effort]("effort")
    stop = Attr[StoredStop]("stop")
    excluded = Attr[Mapping[str, StoredExclusion]]("excluded")  # trials that a person took out, by number
    preset_aliases = Attr[Mapping[str, str]]("preset_aliases")  # presets that equal another, and which
    follows = Attr[Mapping[str, Any]]("from")  # the warm start
    no_model_cosine = Attr[float]("no_model_cosine")  # on the validation people, as the next ten
    no_model_by_yaw = Attr[Mapping[str, float | None]]("no_model_by_yaw")
    no_model_recognition = Attr[Mapping[str, Any]]("no_model_recognition")  # as `Recognition.to_dict` gives it
    ridge_cosine = Attr[float]("ridge_cosine")
    ridge_by_yaw = Attr[Mapping[str, float | None]]("ridge_by_yaw")
    ridge_penalty = Attr[float]("ridge_penalty")
    ridge_recognition = Attr[Mapping[str, Any]]("ridge_recognition")
    kernel_ridge_cosine = Attr[float]("kernel_ridge_cosine")
    kernel_ridge_by_yaw = Attr[Mapping[str, float | None]]("kernel_ridge_by_yaw")
    kernel_ridge_choice = Attr[Mapping[str, Any]]("kernel_ridge_choice")  # of fold 1; views and centres of its fit
    kernel_ridge_recognition = Attr[Mapping[str, Any]]("kernel_ridge_recognition")
    confirmation = Attr[Mapping[str, Any]]("confirmation")  # what `confirm` found on the test people
    rotation = Attr[Mapping[str, Any]]("rotation")  # what `confirm --rotate` found on all people
    script_confirmation = Attr[Mapping[str, Any]]("script_confirmation")  # what `confirm` found with the user's script


class TrialAttr:
    """The user attributes of a trial."""

    # Where it comes from.
    preset = Attr[str | None]("preset")  # its name
    near = Attr[str]("near")  # the name of a point near the best trial of the study before
    tried = Attr[Sequence[str]]("tried")  # the words with which a person queued it
    like = Attr[StoredWinner]("like")  # a winner of another study
    overrides = Attr[Mapping[str, Any]]("overrides")  # values that the study does not search
    origin = Attr[str]("origin")  # `imported`, if it was trained elsewhere
    run_id = Attr[str]("run_id")  # of an imported run
    imported_from = Attr[str]("imported_from")  # path of its checkpoint
    sha256 = Attr[str]("sha256")  # of its checkpoint
    confirmed = Attr[bool]("confirmed")  # whether the study could repeat the value of an imported run
    retry_of = Attr[int]("retry_of")  # number of the trial whose process died
    lineage = Attr[int]("lineage")  # number of the first trial in the row of retries
    deaths = Attr[int]("deaths")  # of processes, in that row
    timeouts = Attr[int]("timeouts")  # among them, of those that gave no epoch for too long
    requeued = Attr[bool]("put_back")  # whether a failed trial has a successor
    excluded = Attr[StoredExclusion]("excluded")  # never stored with a trial: `exclusions.read_trials` marks it

    # With what it trains.
    ordinal = Attr[int]("ordinal")  # seeds follow from it
    seed = Attr[int]("seed")
    sampler_seed = Attr[int]("sampler_seed")
    config = Attr[Mapping[str, Any]]("config")  # of a TrialConfig
    worker = Attr[str]("worker")
    device = Attr[str]("device")
    engine = Attr[str]("engine")
    script_version = Attr[str]("script_version")  # of the user's script: a hash of its files
    lr_now = Attr[float]("lr_now")  # learning rate of the last epoch
    rank1_now = Attr[float]("rank1_now")  # among all enrolled, of an epoch in the last seconds of training

    # How it ended.
    stop_reason = Attr[str]("stop_reason")
    cause = Attr[str]("cause")  # of a failure
    error = Attr[str]("error")
    seconds = Attr[float]("seconds")
    resumed_epochs = Attr[int]("resumed_epochs")  # that came from a checkpoint
    resume_note = Attr[str]("resume_note")
    raced_out_after_fold = Attr[int]("raced_out_after_fold")

    # What it reached. Each fold of `folds` has these too.
    epochs_run = Attr[int]("epochs_run")
    lr_decays = Attr[int]("lr_decays")
    lr_final = Attr[float]("lr_final")
    amp = Attr[str]("amp")  # precision
    retried_without_amp = Attr[bool]("retried_without_amp")
    best_epoch = Attr[int]("best_epoch")
    val_cosine = Attr[float]("val_cosine")  # of the best epoch, as the next four
    val_loss = Attr[float]("val_loss")
    val_loss_equal = Attr[float]("val_loss_equal")  # with weights 0.5 and 0.5, comparable between trials
    train_loss = Attr[float]("train_loss")
    gap = Attr[float]("gap")  # validation loss less training loss
    cosine_by_yaw = Attr[Mapping[str, float | None]]("cosine_by_yaw")
    recognition = Attr[Mapping[str, Any]]("recognition")  # at the best epoch, as `Recognition.to_dict` gives it
    numbers = Attr[Mapping[str, float]]("numbers")  # of a script at the best epoch, by name
    folds = Attr[Sequence[Mapping[str, Any]]]("folds")
