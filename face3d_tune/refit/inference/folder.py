"""The folder that an ensemble is taken home in: it predicts frontal embeddings without this package.

predict.py                the script, with numpy and torch alone
config.json               what was made of what
README.md                 how to use it, in English and Chinese
member-1.pth …            a checkpoint of each member, whose weights load in the users' model
baseline.npz              the baseline of the blend
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from face3d_tune import __version__
from face3d_tune.errors import ConfigError
from face3d_tune.refit.inference.ensemble import Ensemble, ExportedMember
from face3d_tune.system.whole_file import sha256_of
from face3d_tune.training import baseline_file
from face3d_tune.training.inputs import with_baseline

VERSION = 1  # of the keys of config.json
CONFIG, BASELINE, COPIED = "config.json", "baseline.npz", ("predict.py", "README.md")
_OURS = re.compile(r"member-\d+\.pth|__pycache__")
_TEMPLATES = Path(__file__).parent
_ANOTHER = "name another folder with --inference"


def require_usable(out: Path, *, force: bool) -> None:
    """Raise ConfigError now, not after the work, if `out` cannot be written, or would replace what is in it.

    With `force` it may hold an earlier folder of this kind, and nothing else.
    """
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "it may not be written to" if nearest.is_dir() else "it is no folder"
        raise ConfigError(f"--inference {out} cannot be used: {nearest}: {reason}", _ANOTHER)
    names = sorted(path.name for path in out.iterdir()) if nearest == out else []
    others = [name for name in names if name not in (CONFIG, BASELINE, *COPIED) and not _OURS.fullmatch(name)]
    if others or (names and CONFIG not in names):
        raise ConfigError(f"--inference {out} holds other files, such as {(others or names)[0]}", _ANOTHER)
    if names and not force:
        raise ConfigError(f"--inference {out} holds an earlier export", f"{_ANOTHER}, or overwrite it with --force")


def write(out: Path, ensemble: Ensemble) -> dict[str, Any]:
    """Write the folder whole or not at all; the same ensemble gives the same bytes. Replaces an earlier one.

    Returns the content of config.json. Raises ConfigError if it cannot be written.
    """
    beside = out.absolute().with_name(f".unfinished-{secrets.token_hex(4)}")
    try:
        beside.mkdir(parents=True)
        for number, member in enumerate(ensemble.members, 1):
            torch.save(_checkpoint(member), beside / f"member-{number}.pth")
        if ensemble.blend is not None:
            baseline_file.save(beside / BASELINE, ensemble.blend.baseline.fitted)
        config = _config(ensemble, {path.name: sha256_of(path) for path in beside.iterdir()})
        text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
        (beside / CONFIG).write_bytes(text.encode("utf-8", errors="backslashreplace"))
        for name in COPIED:
            shutil.copyfile(_TEMPLATES / name, beside / name)
        if out.exists():  # empty, or an earlier one
            shutil.rmtree(out)
        beside.rename(out)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ConfigError(f"--inference {out} cannot be written: {reason}", _ANOTHER) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return config


def _checkpoint(member: ExportedMember) -> dict[str, Any]:
    """Return a checkpoint as the users' script writes it, without what only training needs."""
    predictor = member.predictor
    weights = {name: value.detach().to("cpu", copy=True) for name, value in predictor.model.state_dict().items()}
    content = {"epoch": predictor.epoch, "model_state_dict": weights, "args": _plain(predictor.args)}
    return with_baseline(content, predictor.baseline)


def _config(ensemble: Ensemble, sha256: Mapping[str, str]) -> dict[str, Any]:
    data, validation = ensemble.data, ensemble.validation
    members = [
        {
            "file": (file := f"member-{number}.pth"),
            "sha256": sha256[file],
            "pose_unit": each.unit,
            "inputs": each.predictor.inputs,
            "layout": each.predictor.layout,
            "epoch": each.predictor.epoch,
            "made_from": {**each.source, "sha256": each.predictor.sha256},
            "config": _plain(each.predictor.config),
        }
        for number, each in enumerate(ensemble.members, 1)
    ]
    blend: dict[str, Any] | None = None
    if (of := ensemble.blend) is not None:
        blend = {"baseline": of.baseline.kind, "weight": of.weight, "file": BASELINE, "sha256": sha256[BASELINE]}
        blend |= {"made_from": _plain(of.fitted)}
    return {
        "version": VERSION,
        "face3d_tune": __version__,
        "feature_size": ensemble.feature_size,
        "needs_landmarks": ensemble.needs_landmarks,
        "landmark_scale": ensemble.landmark_scale,
        "members": members,
        "blend": blend,
        "data": None if data is None else {"source": data.source, "fingerprint": data.fingerprint()},
        "validation": None if validation is None else validation.to_dict(),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON's own values, and anything else as text."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain
