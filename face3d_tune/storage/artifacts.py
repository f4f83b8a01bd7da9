"""The storage of checkpoints: a folder, also a shared one, or a bucket of S3. Every write is atomic.

Optuna and boto3 are imported on use: a process that only trains, into a folder, needs neither.
"""

import contextlib
import hashlib
import io
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from face3d_tune.errors import ArtifactError
from face3d_tune.system.paths import expanded
from face3d_tune.system.safe_text import learn_url, masked, redact
from face3d_tune.system.waiting import waited_for
from face3d_tune.system.whole_file import PARTIAL, replacing

# A training waits for S3, so retries against one that is away end sooner than by boto3's default.
_S3_PATIENCE = {"connect_timeout": 5, "read_timeout": 30, "retries": {"total_max_attempts": 3}}
_S3_HINT = "check the bucket, AWS_REGION, AWS_ENDPOINT_URL_S3, and the credentials (AWS_PROFILE or AWS_ACCESS_KEY_ID)"


class Artifacts(ABC):
    """Files by name; names are relative, with `/` between their parts. An instance can be pickled.

    Every method raises ArtifactError if the folder or bucket cannot be reached or used. It raises ValueError for a name
    outside of it.
    """

    @staticmethod
    def parse(text: str, *, to_write: bool = True) -> "Artifacts":
        """Open a folder or `s3://BUCKET/PREFIX`.

        With `to_write`, create the folder and test that writing works. Raises ArtifactError.
        """
        place: Artifacts
        learn_url(text)
        if text.startswith("s3://"):
            if set(text.partition("://")[2]) & set("@:?"):
                raise ArtifactError(
                    f"artifacts {masked(text)}: neither credentials nor options belong there",
                    "use s3://BUCKET/PREFIX, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the credentials",
                )
            place = _Bucket(*text.removeprefix("s3://").partition("/")[::2])
        elif "://" in text:
            scheme = text.partition("://")[0]
            raise ArtifactError(f"cannot keep artifacts in {scheme}://…", "use a folder or s3://BUCKET/PREFIX")
        else:
            place = _Folder(text)
        if to_write:
            place._try_out()
        return place

    @abstractmethod
    def _try_out(self) -> None:
        """Raise ArtifactError if nothing can be written here."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file, atomically: a reader, also after a crash, finds the old content or the new."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return the content, or None if there is no file of this name."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove the file, if it exists."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, sorted."""

    @property
    def folder(self) -> Path | None:
        """Return the folder on this machine; None for a bucket."""
        return None

    @property
    @abstractmethod
    def optuna_store(self) -> Any:
        """Return the same place as an Optuna artifact store (`optuna.artifacts`)."""


class _Folder(Artifacts):
    """A folder. Optuna's own store writes in place, where a crash leaves half a file; so it only reads here."""

    def __init__(self, text: str) -> None:
        self._text, self._path = text, expanded(text).absolute()

    def __str__(self) -> str:
        return self._text

    def _try_out(self) -> None:
        hint = "choose another folder with --artifacts, or --artifacts none to keep no checkpoints"
        with self._refused("use", hint):
            self._path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._path):
                pass

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file. The next write replaces the leftover of a crash."""
        path = self._path / _checked(name)
        with self._refused("write to"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(content)

    def read(self, name: str) -> bytes | None:
        """Return the content, or None."""
        with self._refused("read from"):
            try:
                return (self._path / _checked(name)).read_bytes()
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Remove the file and the leftover of a crash during a later write."""
        path = self._path / _checked(name)
        with self._refused("remove from"):
            path.unlink(missing_ok=True)
            path.with_name(path.name + PARTIAL).unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        """Return the names below the folder that the prefix leads to."""
        folder = prefix.rpartition("/")[0]
        start = self._path / _checked(folder) if folder else self._path
        with self._refused("list"):
            paths = [path.relative_to(self._path).as_posix() for path in start.rglob("*") if path.is_file()]
        return sorted(name for name in paths if name.startswith(prefix) and not name.endswith(PARTIAL))

    @property
    def folder(self) -> Path:
        """Return the folder."""
        return self._path

    @property
    def optuna_store(self) -> Any:
        """Return a FileSystemArtifactStore."""
        return import_module("optuna.artifacts").FileSystemArtifactStore(self._path)

    @contextlib.contextmanager
    def _refused(self, verb: str, hint: str | None = None) -> Iterator[None]:
        try:
            with waited_for(str(self)):
                yield
        except OSError as error:  # without the name, so that a caller reports the reason once
            raise ArtifactError(f"cannot {verb} {self}: {error.strerror or error}", hint) from error


class _Bucket(Artifacts):
    """A bucket. S3 shows an object once all of it has arrived, so Optuna's store suffices."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix.strip("/")

    def __str__(self) -> str:
        return "s3://" + "/".join(filter(None, (self._bucket, self._prefix)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _Bucket, (self._bucket, self._prefix)  # a connection cannot be pickled

    def _try_out(self) -> None:
        if not self._bucket:
            raise ArtifactError(f"{self} names no bucket", "use s3://BUCKET/PREFIX")
        name = f"probe-{uuid4().hex}"
        self.write(name, b"")
        self.remove(name)

    @cached_property
    def _client(self) -> Any:
        try:
            boto3, config = import_module("boto3"), import_module("botocore.config")
        except ImportError as error:
            raise ArtifactError("S3 needs boto3", "pip install 'face3d-tune[s3]'") from error
        return boto3.client("s3", config=config.Config(**_S3_PATIENCE))

    @cached_property
    def _store(self) -> Any:
        store = import_module("optuna.artifacts").Boto3ArtifactStore(self._bucket, self._client)
        return _Prefixed(store, self._prefix) if self._prefix else store

    def write(self, name: str, content: bytes) -> None:
        """Upload."""
        with self._refused("write to"):
            self._store.write(_checked(name), io.BytesIO(content))

    def read(self, name: str) -> bytes | None:
        """Download, or None."""
        with self._refused("read from"):
            try:
                with contextlib.closing(self._store.open_reader(_checked(name))) as body:
                    return bytes(body.read())
            except import_module("optuna.artifacts.exceptions").ArtifactNotFound:
                return None

    def remove(self, name: str) -> None:
        """Remove."""
        with self._refused("remove from"):
            self._store.remove(_checked(name))

    def names(self, prefix: str) -> list[str]:
        """List the names, a page of a thousand at a time."""
        root = f"{self._prefix}/" if self._prefix else ""
        with self._refused("list"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=root + prefix)
            return sorted(item["Key"].removeprefix(root) for page in pages for item in page.get("Contents", ()))

    @property
    def optuna_store(self) -> Any:
        """Return a Boto3ArtifactStore under the prefix."""
        return self._store

    @contextlib.contextmanager
    def _refused(self, verb: str) -> Iterator[None]:
        self._client  # noqa: B018 - a missing part has its own message
        errors, more = import_module("botocore.exceptions"), import_module("boto3.exceptions")
        try:
            with waited_for(str(self)):
                yield
        except (errors.BotoCoreError, errors.ClientError, more.Boto3Error, OSError) as error:
            # The last words say what is wrong; those before name our object, as does a URL behind its host. Without
            # it the same reason is the same line.
            reason = redact(" ".join(str(error).split()).rpartition(" operation: ")[2])
            reason = re.sub(r"""(https?://[^/?"\s]+)[^"\s]*""", r"\1", reason)
            raise ArtifactError(f"cannot {verb} {self}: {reason}", _S3_HINT) from error


class _Prefixed:
    """An Optuna artifact store inside another."""

    def __init__(self, store: Any, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def open_reader(self, artifact_id: str) -> Any:
        return self._store.open_reader(f"{self._prefix}/{artifact_id}")

    def write(self, artifact_id: str, content_body: Any) -> None:
        self._store.write(f"{self._prefix}/{artifact_id}", content_body)

    def remove(self, artifact_id: str) -> None:
        self._store.remove(f"{self._prefix}/{artifact_id}")


def unique_name(study: str, study_id: str) -> str:
    """Join a study's name with the beginning of its user attribute `id`, which tells studies of one name apart."""
    return f"{study} {study_id[:8]}"


def study_folder(unique: str) -> str:
    """Return the folder of a study's artifacts: a name for every file system, also one that ignores case."""
    words = re.sub(r"[^a-z0-9]+", "-", unique.lower()).strip("-")[:40]
    return f"{words}-{hashlib.sha256(unique.encode()).hexdigest()[:12]}".lstrip("-")


def best_weights(unique: str, trial: str) -> str:
    """Return the name of the best weights of a trial, `trial-N`, in the users' format (trainer contract §4)."""
    return f"{study_folder(unique)}/best/{trial}.pth"


def log_of(unique: str, trial: str) -> str:
    """Return the name of the output of a trial of a script, `trial-N`."""
    return f"{logs_of(unique)}{trial}.txt"


def logs_of(unique: str) -> str:
    """Return the beginning of the names of all logs of a study."""
    return f"{study_folder(unique)}/logs/"


def _checked(name: str) -> str:
    """Return the name, if it stays inside the folder that it is appended to, on every system. Raises ValueError."""
    if any(part in ("", ".", "..") for part in name.split("/")) or set(name) & set("\\:") or name.endswith(PARTIAL):
        raise ValueError(f"{name!r} is not an artifact name")
    return name
