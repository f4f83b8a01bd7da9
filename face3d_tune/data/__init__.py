"""The six data files (trainer contract §2): read, checked, paired, split by person, copied. Import from here.

files ← metadata     what is in the six files, and every problem with them
pairs                who is paired with whom; who trains, validates and tests
doubts               what no error forbids and a person should look at
face_data            all of it together, ready to train on
copy                 the files written anew: the sample, or another pose unit
"""

from face3d_tune.data.doubts import SHARE, narrowest_arc
from face3d_tune.data.face_data import (
    NO_SPLIT_WARNING,
    SAMPLE,
    SAMPLE_NAME,
    YAW_BANDS,
    FaceData,
    Inspection,
    inspect,
    load,
    mean_by_yaw,
    recorded_selection,
    yaw_band,
)
from face3d_tune.data.pairs import PARTS, TURN_ANGLES, Pairs, Part, Split, TurnAngle, persons

__all__ = [
    "NO_SPLIT_WARNING",
    "PARTS",
    "SAMPLE",
    "SAMPLE_NAME",
    "SHARE",
    "TURN_ANGLES",
    "YAW_BANDS",
    "FaceData",
    "Inspection",
    "Pairs",
    "Part",
    "Split",
    "TurnAngle",
    "inspect",
    "load",
    "mean_by_yaw",
    "narrowest_arc",
    "persons",
    "recorded_selection",
    "yaw_band",
]
