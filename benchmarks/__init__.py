"""Measurements of speed, and of what survives; see README.md in this folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # whose data, servers and history are of use here too
