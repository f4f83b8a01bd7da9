"""Presets as a prior: sample round them with a probability that fades (the idea of PriorBand, Mallik et al. 2023)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState


class AroundSampler(BaseSampler):
    """Another sampler, but for a share of the trials that are sampled round a point.

    Args:
        base: Samples the others.
        space: All that is sampled.
        seed: Of what is sampled here.
        presets: Points as params; each is as likely as the others.
        share: Of the trials sampled round a preset, at first; it halves every `half_life` finished trials.
        best_share: Of the trials sampled round the best completed trial, always.
        width: Standard deviation of a range's value, as a part of the (log) range; chance that a choice is drawn anew.
    """

    def __init__(
        self,
        base: BaseSampler,
        space: Mapping[str, BaseDistribution],
        seed: int,
        presets: Sequence[Mapping[str, Any]] = (),
        *,
        share: float = 0.0,
        half_life: float = 15.0,
        best_share: float = 0.0,
        width: float = 0.2,
    ) -> None:
        self._base, self._space, self._rng = base, dict(space), np.random.default_rng(seed)
        self._presets, self._share, self._half_life = presets, share, half_life
        self._best_share, self._width = best_share, width
        self._delegated: dict[str, BaseDistribution] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All, since a trial round a point has every parameter at once."""
        self._delegated = self._base.infer_relative_search_space(study, trial)
        return dict(self._space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a point near another one, or a point of the base."""
        finished = study._get_trials(False, (TrialState.COMPLETE, TrialState.PRUNED), use_cache=True)
        drawn, share = self._rng.random(), self._share * 0.5 ** (len(finished) / self._half_life)
        completed = [t for t in finished if t.state == TrialState.COMPLETE]
        if self._presets and drawn < share:
            return self._near(self._presets[self._rng.integers(len(self._presets))])
        if completed and share <= drawn < share + self._best_share:
            return self._near(max(completed, key=lambda t: t.value if t.value is not None else -math.inf).params)
        return self._base.sample_relative(study, trial, self._delegated)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a point of the base."""
        return self._base.sample_independent(study, trial, param_name, param_distribution)

    def _near(self, centre: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._drawn(row, centre.get(name)) for name, row in self._space.items()}

    def _drawn(self, row: BaseDistribution, centre: Any) -> Any:
        match row:
            case CategoricalDistribution():
                if centre is None or self._rng.random() < self._width:
                    return row.choices[self._rng.integers(len(row.choices))]
                return centre
            case FloatDistribution() | IntDistribution():
                low, high = (math.log(row.low), math.log(row.high)) if row.log else (row.low, row.high)
                at = low if centre is None else math.log(centre) if row.log else centre
                value = math.inf
                while not low <= value <= high:
                    value = self._rng.normal(at, self._width * (high - low) + 1e-12)
                value = min(max(math.exp(value) if row.log else value, row.low), row.high)
                return round(value) if isinstance(row, IntDistribution) else value
        raise TypeError(f"no such distribution in a study file: {row}")
