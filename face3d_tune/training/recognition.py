"""Recognition of people by predictions: identification and verification against a gallery of frontal embeddings.

A query is a prediction x of unit length, of a view or pooled: the mean of all unit predictions of a person, scaled to
length 1. Its score with person q is the cosine of x and the frontal embedding of q, the highest if q has several front
rows. A gallery holds one entry a person: `judged` has the people of the part, `enrolled` everyone in the front file.

- rank-1: the share of queries whose own person has the highest score of the gallery. A tie counts as lost.
- TAR at FAR 1 %: the share of queries whose score with their own person exceeds a threshold. The threshold is the
  lowest score that at most 1 % of the impostor pairs exceed. An impostor pair is a query and another person of the
  gallery. All views share a threshold, whatever their band of |yaw|; pooled queries have their own.
- identity: the mean of τ · log(exp(s(own)/τ) / Σ exp(s(q)/τ)) over the `enrolled` gallery, τ = 0.1. It is in units of
  cosine, at most 0, and smooth where rank-1 has steps.

Sources: ISO/IEC 19795-1 (identification rate, TAR, FAR); Grother & Phillips (2004) on closed-set identification.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face3d_tune.data.face_data import FaceData, yaw_band
from face3d_tune.data.pairs import Part
from face3d_tune.data.yaw_bands import YAW_BANDS

ALL, POOLED = "all", "pooled"
WHERE = (ALL, *YAW_BANDS, POOLED)  # the queries whose values are averaged: of all views, of a band, or pooled
TEMPERATURE = 0.1  # τ, in units of cosine
FALSE_ACCEPTS = 100  # the threshold accepts one impostor pair in so many: FAR 1 %
_TIE = 1e-12  # products of equal embeddings differ by less, embeddings of different faces by more
_SHORTEST = 1e-8  # least length by which a vector is divided, as in `losses.cosines`
_CELLS = 2**21  # scores in memory at a time

Predictions = NDArray[Any] | Tensor  # [pairs, F]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rates:
    """Means over people of the means over their queries; None where undefined, as TAR is without impostors."""

    rank1_judged: float | None  # [0, 1], as the next three
    rank1_enrolled: float | None
    tar_judged: float | None  # at FAR 1 %
    tar_enrolled: float | None
    identity: float | None  # at most 0
    cosine: float | None  # with the own person, [-1, 1]

    def to_dict(self) -> dict[str, float | None]:
        """Return the rates by name."""
        return {name: getattr(self, name) for name in RATES}


RATES = tuple(field.name for field in fields(Rates))


@dataclass(frozen=True, slots=True)
class Recognition:
    """Recognition of one part of the people by their predictions, as rates."""

    judged: int  # people in this gallery
    enrolled: int
    people: int  # with views
    views: int
    all: Rates
    by_yaw: Mapping[str, Rates]  # by |yaw| band of the view
    pooled: Rates  # one query a person

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Read the result of `to_dict`."""
        by_yaw = {band: Rates(**rates) for band, rates in stored["by_yaw"].items()}
        rates = {"all": Rates(**stored["all"]), "by_yaw": by_yaw, "pooled": Rates(**stored["pooled"])}
        return cls(**{**stored, **rates})

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON."""
        return {
            **{name: getattr(self, name) for name in ("judged", "enrolled", "people", "views")},
            "all": self.all.to_dict(),
            "by_yaw": {band: rates.to_dict() for band, rates in self.by_yaw.items()},
            "pooled": self.pooled.to_dict(),
        }


class Gallery:
    """The frontal embeddings of all people, and the views of one part of them. Made once for all predictions.

    A view is a video row: if its person has several front rows, it has as many pairs and counts once. The scores are
    computed in float64 on `device`, or on the CPU where the device has no float64. People of `without` are not
    enrolled.
    """

    def __init__(
        self, data: FaceData, part: Part, device: torch.device | None = None, *, without: Collection[str] = ()
    ) -> None:
        pairs = data.parts[part]
        _, first = np.unique(pairs[:, 1], return_index=True)
        self.first = np.sort(first)  # [views], the pair that stands for a view
        owners = [data.front_names[row] for row in pairs[self.first, 0]]
        judged = {*data.people[part], *owners}
        fronts = [row for row, name in enumerate(data.front_names) if name not in without]
        everyone = dict.fromkeys(data.front_names[row] for row in fronts)
        names = [name for name in everyone if name in judged] + [name for name in everyone if name not in judged]
        number = {name: place for place, name in enumerate(names)}

        self.judged, self.enrolled = sum(name in judged for name in names), len(names)
        self.owner = np.array([number[name] for name in owners], dtype=np.int64)  # [views], in the gallery
        seen, person = np.unique(self.owner, return_inverse=True)
        self.people = tuple(names[place] for place in seen)  # with views, in the order of `pairs.persons`
        self.person = person.astype(np.int64)  # [views], in `people`
        self.band = yaw_band(data.yaw[pairs[self.first, 1]])  # [views], in YAW_BANDS

        self.device = torch.device("cpu") if device is None or device.type == "mps" else device
        rows = np.array([number[data.front_names[row]] for row in fronts])
        order = np.argsort(rows, kind="stable")  # one row a person: the columns of the scores are people
        self._fronts = _unit(torch.from_numpy(data.front_features[fronts][order]).to(self.device))  # [rows, F]
        self._rows = torch.from_numpy(rows[order]).to(self.device)
        tables = self.owner, self.person, seen
        self._owner, self._person, self._seen = (torch.from_numpy(each).to(self.device) for each in tables)

    def scores(self, predictions: Predictions) -> "Scores":
        """Return the scores of predictions of all pairs, of any length."""
        judging = Judging(self)
        judging.add(torch.as_tensor(predictions))
        return judging.end()

    def pieces(self, queries: int) -> list[slice]:
        """Cut so many queries into pieces whose scores fit into memory."""
        size = max(1, _CELLS // len(self._fronts))
        return [slice(begin, begin + size) for begin in range(0, queries, size)]

    def cosines(self, queries: Tensor) -> Tensor:
        """Return the score of each query with each person, [queries, enrolled], from unit vectors [queries, F]."""
        cosines = queries @ self._fronts.T
        if len(self._fronts) == self.enrolled:
            return cosines
        highest = cosines.new_empty(len(queries), self.enrolled)
        return highest.scatter_reduce_(1, self._rows.expand_as(cosines), cosines, "amax", include_self=False)


class Judging:
    """The scores of a gallery's part, from predictions that come piece by piece, in the order of its pairs."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery, self._pairs, self._views = gallery, 0, 0
        self._tally = _Tally(gallery, len(gallery.owner))
        self._sums = gallery._fronts.new_zeros(len(gallery.people), gallery._fronts.shape[1])

    def add(self, predictions: Tensor) -> None:
        """Take the predictions of the next pairs, [B, F], of any length."""
        gallery, pairs = self._gallery, self._pairs + len(predictions)
        views = int(np.searchsorted(gallery.first, pairs))
        chosen = gallery.first[self._views : views] - self._pairs
        for piece in gallery.pieces(len(chosen)):
            rows = torch.from_numpy(chosen[piece]).to(predictions.device)
            queries = _unit(predictions[rows].detach().to(gallery.device))
            self._tally.add(queries, gallery._owner[self._views : views][piece])
            self._sums.index_add_(0, gallery._person[self._views : views][piece], queries)
        self._pairs, self._views = pairs, views

    def end(self) -> "Scores":
        """Return the scores once every pair has been added."""
        pooled = _Tally(self._gallery, len(self._gallery.people))
        for piece in self._gallery.pieces(len(self._sums)):
            pooled.add(_unit(self._sums[piece]), self._gallery._seen[piece])
        return Scores(self._gallery, self._tally.end(), pooled.end())


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """The outcome of each query. Thresholds are NaN without impostors."""

    own: Values  # [queries], score with the own person
    rival_judged: Values  # [queries], highest score with another person of the gallery; -inf if there is none
    rival_enrolled: Values
    identity: Values  # [queries]
    threshold_judged: float
    threshold_enrolled: float

    def values(self) -> Values:
        """Return the value of each rate for each query, [rates, queries]."""
        won = [self.own > rival + _TIE for rival in (self.rival_judged, self.rival_enrolled)]
        accepted = [
            np.full(len(self.own), np.nan) if np.isnan(threshold) else self.own > threshold + _TIE
            for threshold in (self.threshold_judged, self.threshold_enrolled)
        ]
        return np.array([*won, *accepted, self.identity, self.own], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of one set of predictions, by view and pooled."""

    gallery: Gallery
    views: Outcomes
    pooled: Outcomes

    def person_means(self) -> dict[str, Values]:
        """Return for each of WHERE the mean of every person's queries, [rates, people]; NaN where there is none.

        The people are `gallery.people`.
        """
        gallery, values, bands = self.gallery, self.views.values(), len(YAW_BANDS)
        people = len(gallery.people)
        in_bands = _means(values, gallery.person * bands + gallery.band, people * bands)
        by_band = dict(zip(YAW_BANDS, in_bands.reshape(len(RATES), people, bands).transpose(2, 0, 1), strict=True))
        return {ALL: _means(values, gallery.person, people), **by_band, POOLED: self.pooled.values()}

    def by_person(self, where: str = ALL) -> dict[str, list[float | None]]:
        """Return each person's mean by rate, in the order of `gallery.people`, over the queries of one of WHERE."""
        means = self.person_means()[where]
        return {
            rate: [None if np.isnan(value) else float(value) for value in each]
            for rate, each in zip(RATES, means, strict=True)
        }

    def summary(self) -> Recognition:
        """Average over people."""
        rates = {where: _rates(means) for where, means in self.person_means().items()}
        return Recognition(
            judged=self.gallery.judged,
            enrolled=self.gallery.enrolled,
            people=len(self.gallery.people),
            views=len(self.gallery.owner),
            all=rates[ALL],
            by_yaw={band: rates[band] for band in YAW_BANDS},
            pooled=rates[POOLED],
        )


class _Tally:
    """The outcomes of queries that come piece by piece. Memory: four numbers a query, and a fiftieth of all scores."""

    def __init__(self, gallery: Gallery, queries: int) -> None:
        self._gallery, self._queries = gallery, 0
        self._outcomes = gallery._fronts.new_empty(4, queries)
        sizes = gallery.judged, gallery.enrolled
        self._thresholds = [_Threshold(queries * (size - 1), self._outcomes) for size in sizes]

    def add(self, queries: Tensor, owner: Tensor) -> None:
        """Take unit vectors [B, F] of these people [B], as numbers in the gallery."""
        scores, owner = self._gallery.cosines(queries), owner[:, None]
        own = scores.gather(1, owner).squeeze(1)
        identity = own - TEMPERATURE * torch.logsumexp(scores / TEMPERATURE, 1)
        strangers = scores.scatter_(1, owner, -torch.inf)
        galleries = strangers[:, : self._gallery.judged], strangers
        outcomes = torch.stack([own, *(each.amax(1) for each in galleries), identity])
        self._outcomes[:, self._queries : self._queries + len(queries)] = outcomes
        self._queries += len(queries)
        for threshold, each in zip(self._thresholds, galleries, strict=True):
            threshold.add(each.flatten())

    def end(self) -> Outcomes:
        """Return the outcome of each query."""
        return Outcomes(*self._outcomes.cpu().numpy(), *(threshold.value() for threshold in self._thresholds))


class _Threshold:
    """The lowest score that at most one of FALSE_ACCEPTS impostors exceeds.

    It allocates all its memory at once, for twice the scores above the threshold: growing would fragment the heap.
    """

    def __init__(self, impostors: int, like: Tensor) -> None:
        self._wanted = (
            impostors // FALSE_ACCEPTS + 1
        )  # from the highest score on, the threshold is the first not accepted
        self._scores = like.new_empty(2 * self._wanted if impostors else 0)
        self._count, self._floor = 0, -math.inf

    def add(self, scores: Tensor) -> None:
        """Take scores of impostors, [n]; -inf stands for no score."""
        if not len(self._scores):
            return
        if self._floor > -math.inf:
            scores = scores[scores > self._floor]
        scores = _highest(scores, self._wanted)
        if self._count + len(scores) > len(self._scores):
            highest = _highest(self._scores[: self._count], self._wanted)
            self._count, self._floor = len(highest), float(highest.min())
            self._scores[: self._count] = highest
        self._scores[self._count : self._count + len(scores)] = scores
        self._count += len(scores)

    def value(self) -> float:
        """Return the threshold; NaN without impostors."""
        return float(_highest(self._scores[: self._count], self._wanted).min()) if self._count else math.nan


def _means(values: Values, group: NDArray[np.int64], groups: int) -> Values:
    """Average [rates, queries] in each group, [rates, groups]; NaN in a group without queries."""
    counts = np.bincount(group, minlength=groups)
    sums = np.zeros((len(values), groups))
    for row, each in zip(sums, values, strict=True):
        row[:] = np.bincount(group, weights=each, minlength=groups)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _rates(means: Values) -> Rates:
    """Average [rates, people] over the people who have a value."""
    columns = [each[~np.isnan(each)] for each in means]
    return Rates(*(float(each.mean()) if len(each) else None for each in columns))


def _unit(vectors: Tensor) -> Tensor:
    wide = vectors.double()
    length: Tensor = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return wide / length.clamp(min=_SHORTEST)


def _highest(scores: Tensor, count: int) -> Tensor:
    """Return the `count` highest of [n], or all, in any order."""
    if len(scores) <= count:
        return scores
    if scores.device.type == "cpu":  # numpy's partition takes a tenth of the time of torch's topk there
        return torch.from_numpy(np.partition(scores.numpy(), len(scores) - count)[-count:])
    return scores.topk(count, sorted=False).values
