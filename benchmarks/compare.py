"""Ways to search, compared on replays at equal numbers of epochs.

    python -m benchmarks.compare samplers          # a table, and docs/pictures/search-samplers.svg
    python -m benchmarks.compare all --workers 2

Regret is the best truth there is less the truth of the trial that a search would recommend, in units of 0.001 cosine:
median (lower quartile to upper quartile) of all searches. "As good" says after how many epochs the median regret is,
for good, no more than that of random search with nothing else after 5000, with and without early stopping.

`identity` compares searches of studies/identity.toml for either objective, and shows the regret in both. The regret in
identity has the same unit.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import options, table
from benchmarks.packed import PACKED
from benchmarks.replay import Result, Setting, run
from benchmarks.surrogate import PEOPLE
from face3d_tune.analysis.svg import Chart, Panel, picture
from face3d_tune.study.objective import COSINE, OBJECTIVES, ObjectiveName

BUDGETS = (500, 1000, 2000, 5000)
GOAL, LONG = 5000, 20_000  # epochs of random search: whose quality is to be had for less, and as far as it is followed
PAIRED, _RESAMPLES = (250, 500, 750, 1000, 1500, 2000), 4000
PICTURES = Path("docs/pictures")
STARTUP = 8  # trials before a sampler begins to learn
EXTRAPOLATING = Setting(  # of studies/default.toml until it knew the shapes of curves; what most comparisons vary
    "tpe",
    {"multivariate": False, "n_startup_trials": STARTUP},
    "extrapolation",
    {"chance": 0.1, "n_startup_trials": 4, "n_warmup_steps": 5},
)
DEFAULT = replace(
    EXTRAPOLATING, pruner="shape", pruner_options={"chance": 0.05, "n_warmup_steps": 5}, pruned_as_completed=True
)
BEFORE = Setting(  # these measurements
    "tpe",
    {"multivariate": True, "n_startup_trials": 15},
    "median",
    {"n_startup_trials": 5, "n_warmup_steps": 10},
)
BASELINES = {
    "random": Setting("random", presets="none"),
    "random, to the end": Setting("random", presets="none", stopping=False),
}


def _samplers() -> dict[str, Setting]:
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "random": ("random", {}),
        "TPE independent": ("tpe", {"multivariate": False, "n_startup_trials": STARTUP}),
        "TPE joint": ("tpe", {"multivariate": True, "n_startup_trials": STARTUP}),
        "CMA-ES": ("cmaes", {"n_startup_trials": STARTUP}),
    }
    return {
        f"{name}{with_presets}": replace(EXTRAPOLATING, sampler=sampler, sampler_options=given, presets=presets)
        for with_presets, presets in (("", "none"), (", presets first", "trials"))
        for name, (sampler, given) in kinds.items()
    }


def _gp() -> dict[str, Setting]:
    """Apart, since it takes as long as all others."""
    options = {"n_startup_trials": STARTUP}
    gp = replace(EXTRAPOLATING, sampler="gp", sampler_options=options)
    return {
        "GP": replace(gp, presets="none"),
        "GP, presets first": gp,
        "GP, no pruner": replace(gp, pruner="none", pruner_options={}, presets="none"),
    }


def _presets() -> dict[str, Setting]:
    prior = {"share": 0.5, "half_life": 15.0}
    own = EXTRAPOLATING.sampler_options
    return {
        "none": replace(EXTRAPOLATING, presets="none"),
        "first trials": EXTRAPOLATING,
        "prior": replace(EXTRAPOLATING, presets="none", sampler_options={**own, **prior}),
        "prior, long": replace(EXTRAPOLATING, presets="none", sampler_options={**own, **prior, "half_life": 50.0}),
        "first trials and prior": replace(EXTRAPOLATING, sampler_options={**own, **prior}),
        "first trials, round the best": replace(EXTRAPOLATING, sampler_options={**own, "best_share": 0.25}),
        "first trials, near the best": replace(
            EXTRAPOLATING, sampler_options={**own, "best_share": 0.25, "width": 0.1}
        ),
        "first trials, half near the best": replace(
            EXTRAPOLATING, sampler_options={**own, "best_share": 0.5, "width": 0.1}
        ),
        "first trials, prior, round the best": replace(
            EXTRAPOLATING, sampler_options={**own, **prior, "best_share": 0.25}
        ),  # PriorBand has all three
    }


def _pruners() -> dict[str, Setting]:
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "none": ("none", {}),
        "median": ("median", {"n_startup_trials": 5, "n_warmup_steps": 10}),
        "percentile 25": ("percentile", {"percentile": 25.0, "n_startup_trials": 5, "n_warmup_steps": 10}),
        "ASHA": ("successive_halving", {"min_resource": 5, "reduction_factor": 3}),
        "Hyperband": ("hyperband", {"min_resource": 5, "max_resource": 100, "reduction_factor": 3}),
        "extrapolation": (EXTRAPOLATING.pruner, dict(EXTRAPOLATING.pruner_options)),
    }
    return {
        f"{name}{how}": replace(EXTRAPOLATING, pruner=pruner, pruner_options=given, stopping=stopping)
        for how, stopping in (("", True), (", to the end", False))
        for name, (pruner, given) in kinds.items()
    }


def _pruners_random() -> dict[str, Setting]:
    return {
        name: replace(setting, sampler="random", sampler_options={}, presets="none")
        for name, setting in _pruners().items()
    }


def _defaults() -> dict[str, Setting]:
    """Return the default while it extrapolated, what it was before, and its neighbours."""
    own, stop = EXTRAPOLATING.sampler_options, EXTRAPOLATING.pruner_options
    return {
        "before": BEFORE,
        "default": EXTRAPOLATING,
        "no presets": replace(EXTRAPOLATING, presets="none"),
        "5 trials at random": replace(EXTRAPOLATING, sampler_options={**own, "n_startup_trials": 5}),
        "15 trials at random": replace(EXTRAPOLATING, sampler_options={**own, "n_startup_trials": 15}),
        "chance 0.05": replace(EXTRAPOLATING, pruner_options={**stop, "chance": 0.05}),
        "chance 0.2": replace(EXTRAPOLATING, pruner_options={**stop, "chance": 0.2}),
        "10 epochs of warm-up": replace(EXTRAPOLATING, pruner_options={**stop, "n_warmup_steps": 10}),
        "before, with extrapolation": replace(BEFORE, pruner=EXTRAPOLATING.pruner, pruner_options=stop),
        "default, with median": replace(EXTRAPOLATING, pruner=BEFORE.pruner, pruner_options=BEFORE.pruner_options),
    }


def _epochs() -> dict[str, Setting]:
    """Return the default, what it was while it extrapolated, and its neighbours."""
    stop = DEFAULT.pruner_options
    return {
        "extrapolation": EXTRAPOLATING,
        "extrapolation, as completed": replace(EXTRAPOLATING, pruned_as_completed=True),
        "shape": DEFAULT,
        "shape, as pruned": replace(DEFAULT, pruned_as_completed=False),
        "shape, chance 0.02": replace(DEFAULT, pruner_options={**stop, "chance": 0.02}),
        "shape, chance 0.1": replace(DEFAULT, pruner_options={**stop, "chance": 0.1}),
        "shape, no presets": replace(DEFAULT, presets="none"),
    }


def _stages() -> dict[str, Setting]:
    """One after the other, or all at once; all on the landscape of the largest space."""
    kinds: dict[str, dict[str, Any]] = {
        "the guide's stages": {"study": "stage1-lr > stage2-loss > stage3-capacity"},
        "default": {"study": "default"},
        "explore": {"study": "explore"},
        "default, then explore": {"study": "default > explore"},
    }
    return {
        f"{name}{where}": replace(EXTRAPOLATING, on="explore", fixed=fixed, **kind)
        for where, fixed in (("", {}), (", in radians", {"pose_unit": "radians"}))
        for name, kind in kinds.items()
    }


def _folds() -> dict[str, Setting]:
    """Return settings with ever fewer validation people, on whom the best need not be best on others."""
    return {
        f"{people} people, {how}": replace(EXTRAPOLATING, people=people, folds=folds, race=race)
        for people in (PEOPLE, 12, 4)
        for how, folds, race in (("one fold", 1, True), ("3 folds, raced", 3, True), ("3 folds, all trained", 3, False))
    }


def _identity() -> dict[str, Setting]:
    """Return searches of one space for either objective."""
    kinds = {
        "shape": DEFAULT,
        "shape, no presets": replace(DEFAULT, presets="none"),
        "extrapolation": replace(DEFAULT, pruner=EXTRAPOLATING.pruner, pruner_options=EXTRAPOLATING.pruner_options),
        "no pruner": replace(DEFAULT, pruner="none", pruner_options={}),
        "random": BASELINES["random"],
    }
    return {
        f"{name}, for {objective}": replace(setting, study="identity", objective=objective)
        for name, setting in kinds.items()
        for objective in OBJECTIVES
    }


COMPARISONS: Mapping[str, Callable[[], dict[str, Setting]]] = {
    "samplers": _samplers,
    "gp": _gp,
    "presets": _presets,
    "pruners": _pruners,
    "pruners-random": _pruners_random,
    "stages": _stages,
    "folds": _folds,
    "defaults": _defaults,
    "epochs": _epochs,
    "identity": _identity,
}


def tell(results: Mapping[str, Result], bases: Mapping[str, Result]) -> None:
    """Print the table of a comparison."""
    epochs = next(iter(results.values())).epochs
    budgets = [budget for budget in BUDGETS if budget <= epochs]
    goals = [base.median(GOAL) for base in bases.values()]
    rows = []
    for name, result in results.items():
        cells = [_quartiles(result.regret(budget)) for budget in budgets]
        rows.append((name, *cells, *(_number(result.epochs_to(goal)) for goal in goals)))
    table(("regret, 0.001 cosine", *(f"{b} epochs" for b in budgets), *(f"as good as {b}" for b in bases)), rows)


def tell_shares(name: str, result: Result, bases: Mapping[str, Result]) -> None:
    """Print after how many epochs `result` has, for good, what random search has after more."""
    rows = []
    for kind, base in bases.items():
        for spent in (budget for budget in (*BUDGETS, 10_000, LONG) if budget <= base.epochs):
            regret = base.median(spent)
            needed = result.epochs_to(regret)
            share = "-" if math.isnan(needed) else f"{needed / spent:.2f}"
            rows.append((kind, spent, f"{regret * 1000:.1f}", _number(needed), share))
    table(("", "epochs", "regret", f"{name} needs", "of them"), rows)


def tell_identity(results: Mapping[str, Result]) -> None:
    """Print the regret in each objective, whichever was searched for, and what a search for the other one changes."""
    first = next(iter(results.values()))
    best = ", ".join(f"{objective} {first.best[objective]:.4f}" for objective in OBJECTIVES)
    print(f"identity: {len(first.traces)} searches each, best truths {best}")
    tell_both(results)
    pair = {f"for {objective}": results[f"shape, for {objective}"] for objective in OBJECTIVES}
    for objective in OBJECTIVES:
        tell_paired(pair, objective)


def tell_both(results: Mapping[str, Result]) -> None:
    """Print the regret of every setting in each objective."""
    epochs = next(iter(results.values())).epochs
    columns = [(spent, objective) for spent in BUDGETS if spent <= epochs for objective in OBJECTIVES]
    rows = [(name, *(_quartiles(result.regret(*column)) for column in columns)) for name, result in results.items()]
    table(("regret, 0.001", *(f"{objective}, {spent} epochs" for spent, objective in columns)), rows)


def tell_paired(pair: Mapping[str, Result], objective: ObjectiveName = COSINE.name) -> None:
    """Print how much the median regret changes from the first to the second, with a 95 % bootstrap interval over the
    seeds that both had.
    """
    rng, rows, (before, after) = np.random.default_rng(0), [], pair.values()
    for spent in (budget for budget in PAIRED if budget <= before.epochs):
        regrets = np.column_stack([each.regret(spent, objective) for each in (before, after)]) * 1000
        drawn = np.median(regrets[rng.integers(len(regrets), size=(_RESAMPLES, len(regrets)))], axis=1)
        low, high = np.quantile(drawn[:, 1] - drawn[:, 0], (0.025, 0.975))
        old, new = np.median(regrets, axis=0)
        rows.append((f"{spent} epochs", f"{old:.1f}", f"{new:.1f}", f"{new - old:+.1f} ({low:+.1f} to {high:+.1f})"))
    table((f"median regret, 0.001 {objective}", *pair, "change"), rows)


def _quartiles(regret: np.ndarray) -> str:
    low, middle, high = np.quantile(regret * 1000, (0.25, 0.5, 0.75))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def _number(epochs: float) -> str:
    return "-" if math.isnan(epochs) else f"{epochs:.0f}"


@dataclass(frozen=True, slots=True)
class Spread:
    """Quartiles of the regret of many searches, after each of some numbers of epochs."""

    epochs: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray


def spreads(results: Mapping[str, Result]) -> dict[str, Spread]:
    """Return the quartiles of every setting, as far as all of them were followed."""
    shortest = min(result.epochs for result in results.values())
    grid = np.unique(np.geomspace(100, shortest, 80).astype(int))
    return {
        name: Spread(grid, *np.quantile([result.regret(int(epochs)) for epochs in grid], (0.25, 0.5, 0.75), axis=1))
        for name, result in results.items()
    }


def draw(shown: Mapping[str, Spread], path: Path) -> None:
    """Write a picture of median regret against epochs spent, with quartiles as a band."""
    epochs = next(iter(shown.values())).epochs
    x = (float(epochs[0]), float(epochs[-1]), "epochs spent")
    lowest = min(spread.low.min() for spread in shown.values())
    y = (max(1e-4, 0.8 * lowest), 0.15, "regret, validation cosine")
    chart = Chart("Regret against epochs spent", x, y, log_x=True, log_y=True, height=420, width=680)
    kinds = [f"s{place % 6} dash{place // 6}" for place in range(len(shown))]
    for spread, kind in zip(shown.values(), kinds, strict=True):
        chart.band(epochs, spread.low, spread.high, kind)
    for spread, kind in zip(shown.values(), kinds, strict=True):
        chart.line(list(zip(epochs, spread.middle, strict=True)), kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    panel = Panel("Regret: median and quartiles", chart, list(zip(shown, kinds, strict=True)))
    path.write_text(picture([panel]), encoding="utf-8")


def main() -> None:
    """Replay, tell, draw."""
    parser = options(__doc__)
    parser.add_argument("names", nargs="+", choices=(*COMPARISONS, "all"))
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=BUDGETS[-1])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--packed", type=Path, default=PACKED)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    asked = parser.parse_args()
    searches, epochs = (2, 500) if asked.quick else (asked.searches, asked.epochs)
    given: dict[str, Any] = {"searches": searches, "packed": asked.packed, "workers": asked.workers}
    for name in COMPARISONS if "all" in asked.names else asked.names:
        settings = COMPARISONS[name]()
        if name == "identity":
            tell_identity(run(settings, epochs=epochs, **given))
            continue
        landscape = next(iter(settings.values())).on  # of all of them
        baselines = {key: replace(base, on=landscape) for key, base in BASELINES.items()}
        bases = run(baselines, epochs=500 if asked.quick else LONG, **given)
        results = run(settings, epochs=epochs, **given)
        first = next(iter(results.values()))
        print(f"{name}: {searches} searches each, best truth {first.best[first.objective]:.4f}")
        tell(results, bases)
        if name == "epochs":
            tell_paired({kind: results[kind] for kind in ("extrapolation", "shape")})
        if "default" in results:
            tell_shares("default", results["default"], bases)
        if not asked.quick:
            draw(spreads({**bases, **results}), asked.pictures / f"search-{name}.svg")


if __name__ == "__main__":
    main()
