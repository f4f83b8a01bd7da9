"""Bands of |yaw|, as they are stored and as they are shown."""

import math
from itertools import pairwise

from face3d_tune.data.yaw_bands import COLUMNS, FARTHEST, YAW_BANDS, label


def test_the_bands_cover_every_yaw_once():
    edges = list(YAW_BANDS.values())
    assert (edges[0][0], edges[-1][1]) == (0, math.inf)
    assert all(low[1] == high[0] for low, high in pairwise(edges))
    assert list(YAW_BANDS)[-1] == FARTHEST


def test_a_band_has_one_label_in_text_and_a_short_one_above_a_column():
    assert [label(band) for band in YAW_BANDS] == ["0–15°", "15–45°", "45–90°"]
    assert COLUMNS == ("<15°", "<45°", ">45°")
