"""docker-compose.yml as Docker Compose would read it, for tests, which have no Docker."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FILE, CUDA = ROOT / "docker-compose.yml", ROOT / "docs" / "docker-compose.cuda.yml"

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-+?])([^}]*))?\})")


def read(environment, *files):
    """The services of compose files, later ones merged into the first, with variables replaced from `environment`."""
    merged = {}
    for file in files or (FILE,):
        _merge(merged, _interpolated(yaml.safe_load(file.read_text(encoding="utf-8")), environment))
    return merged["services"]


def entry_point(service):
    """The words that the service's image puts before its command."""
    (words,) = re.findall(r"^ENTRYPOINT (.+)$", service["build"]["dockerfile_inline"], flags=re.MULTILINE)
    return json.loads(words)


def _interpolated(value, environment):
    if isinstance(value, dict):
        return {key: _interpolated(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interpolated(inner, environment) for inner in value]
    return _VARIABLE.sub(lambda found: _resolved(found, environment), value) if isinstance(value, str) else value


def _resolved(found, environment):
    dollar, name, operator, operand = found.groups()
    value = dollar or environment.get(name, "")
    match operator:
        case "-":
            return value or operand
        case "+":
            return operand if value else ""
        case "?" if not value:
            raise KeyError(f"{name}: {operand}")
    return value


def _merge(into, other):
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
