"""The identity term of the loss: the cross-entropy of the right person among the training people.

The score s(v, q) of a prediction for view v with person q is its cosine to the frontal embedding of q, the highest if q
has several front rows. With temperature τ the cross-entropy of a pair of person p is

    −log( exp(s(v, p)/τ) / Σ_q exp(s(v, q)/τ) ),   q over all training people.

It is a softmax over cosines (Wang et al., 2017, "NormFace") with the frontal embeddings as fixed class centres. Only
the people who train are in its gallery: those of the fold or rotation.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SHORTEST = 1e-8  # least length by which a vector is divided, as in `losses.cosines`


class TrainingPeople:
    """The frontal embeddings of the people of some pairs, one entry a person.

    Args:
        target: Frontal embedding of each pair, [pairs, F], of any length.
        front: Front row of each pair, [pairs].
        person: Person of each pair, [pairs], numbered from 0 without a gap, as `data.pairs.persons` does.
    """

    def __init__(self, target: Tensor, front: NDArray[np.int64], person: Tensor) -> None:
        _, first = np.unique(front, return_index=True)
        chosen = torch.from_numpy(first).to(target.device)
        self.fronts = functional.normalize(target[chosen], dim=1, eps=SHORTEST)  # [rows, F]
        owners = person[chosen].cpu().numpy()
        rows = [np.flatnonzero(owners == number) for number in range(int(owners.max()) + 1)]
        most = max(map(len, rows))
        # The rows of each person, [people, most]; one with fewer repeats its first. None: a row a person, in order.
        table = np.stack([np.concatenate((each, np.repeat(each[:1], most - len(each)))) for each in rows])
        in_order = most == 1 and bool((table[:, 0] == np.arange(len(rows))).all())
        self.rows = None if in_order else torch.from_numpy(table).to(target.device)

    def __len__(self) -> int:
        return len(self.fronts) if self.rows is None else len(self.rows)

    def nearest(self, cosines: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return each person's highest cosine, [..., people], and its row, from the cosines with all rows, [..., rows].

        Of equal cosines the first row counts. The rows are None if every person has one.
        """
        if self.rows is None:
            return cosines, None
        scores, place = cosines[..., self.rows].max(-1)
        return scores, self.rows.expand(*place.shape, -1).gather(-1, place.unsqueeze(-1)).squeeze(-1)

    def cross_entropies(self, prediction: Tensor, person: Tensor, temperature: float) -> Tensor:
        """Return the cross-entropy of each pair, [B], from predictions [B, F] of any length for these people [B]."""
        cosines = functional.normalize(prediction, dim=-1, eps=SHORTEST) @ self.fronts.T
        scores, _ = self.nearest(cosines)
        return functional.cross_entropy(scores / temperature, person, reduction="none")
