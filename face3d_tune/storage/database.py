"""The database of studies: its URL and its connections. No text shows its password."""

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import text
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    NoSuchModuleError,
    ProgrammingError,
)
from sqlalchemy.pool import NullPool

from face3d_tune.errors import NoStudiesError, StorageError
from face3d_tune.storage import bounded_psycopg, server_tables
from face3d_tune.storage.failures import explained, is_away, reason_of, rights, was_refused
from face3d_tune.storage.far_storage import FarStorage
from face3d_tune.storage.few_round_trips import DRIVER, POOL_EVENTS
from face3d_tune.storage.kept_open import engine_for, let_go, note_tables, tables_were_found
from face3d_tune.storage.optuna_internals import WideStorage, head_version, storage_on
from face3d_tune.storage.search_right import right_to_search
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.storage.sqlite_file import patience
from face3d_tune.system.notices import notice
from face3d_tune.system.paths import expanded
from face3d_tune.system.safe_text import learn_url, masked, secret_part

_CONNECT_WAIT = 10  # seconds for a PostgreSQL server to answer
_LAST_TABLE = "alembic_version"  # the last that Optuna creates; without it a storage is incomplete
_LOST_AT_THE_START = (0.5, 2.0, 5.0)  # seconds between the attempts to open a storage
_OWN_FILE = "wait until it ends, or give this search a file of its own: --storage sqlite:///other.db"
_OPTION = re.compile(r"\w+=.*").fullmatch


def _require_one_meaning(typed: str, file: str) -> None:
    """Raise StorageError if a SQLite URL may also mean another file than `file`, which SQLAlchemy reads in it.

    As in every URL, %20 is a space and a question mark begins options. SQLAlchemy 2.0 took %20 for three characters.
    """
    start, _, rest = typed.partition(":///")
    name, mark, options = rest.partition("?")
    first, second = (f"{start}:///{spelled.replace('%', '%25')}" for spelled in (file, name))
    if mark and not all(map(_OPTION, options.split("&"))):
        raise StorageError(
            f"storage {masked(typed)}: options follow a question mark, as in ?timeout=30, and these are none",
            f"if it belongs to the file's name, write %3F: {start}:///{rest.replace('?', '%3F')}",
        )
    if name != file and os.path.exists(name):
        raise StorageError(
            f"storage {masked(typed)} may mean two files: {file}, and {name}, which exists",
            f"for the first write {first}, for the second {second}",
        )


@dataclass(frozen=True, slots=True, repr=False)
class Storage:
    """The storage of studies. Its text, in an error as in a log, shows no password."""

    url: URL

    @classmethod
    def parse(cls, typed: str) -> "Storage":
        """Read `sqlite:///FILE` or `postgresql://…`. Raises StorageError."""
        typed = typed.strip()
        learn_url(typed)
        hint = "use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        try:
            url = make_url(typed)
        except (ArgumentError, ValueError):  # its text may contain a piece of the password
            url = None
        part = secret_part(typed)
        if part and ("@" in typed[slice(*part)] or (url and unquote(typed[slice(*part)]) != url.password)):
            raise StorageError(
                f"storage {masked(typed)}: the password is not encoded, so it is unclear where it ends",
                "write @ in it as %40, : as %3A, / as %2F, ? as %3F; or omit it and set PGPASSWORD",
            )
        if url is None:
            raise StorageError("the storage is not a database URL", hint)
        kind = url.get_backend_name()
        if kind == "postgres":
            kind = "postgresql"
        if kind == "postgresql":
            return cls(url.set(drivername="postgresql+psycopg"))
        if kind != "sqlite":
            raise StorageError(f"storage {url.drivername!r} is not supported", hint)
        if url.host:
            raise StorageError(
                f"storage {masked(typed)}: SQLite knows no hosts",
                "three slashes stand before the file, and four if it is named from the root: sqlite:///FILE",
            )
        if not url.database or url.database == ":memory:":
            raise StorageError(f"storage {masked(typed)} is in memory: its studies would be lost", hint)
        _require_one_meaning(typed, url.database)
        path = str(expanded(url.database)) if url.database.startswith("~") else url.database
        try:
            path.encode()  # as SQLite does
            if stat.S_ISDIR(os.stat(path).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except (FileNotFoundError, NotADirectoryError):
            pass  # opening creates it, or says what is missing
        except UnicodeEncodeError as error:
            raise StorageError("the storage has a name that is not UTF-8, which SQLite needs", hint) from error
        except (OSError, ValueError) as error:  # a name too long or with a NUL in it, or no permission
            message = error.strerror if isinstance(error, OSError) else str(error)
            raise StorageError(f"storage {masked(typed)} cannot be reached: {message}", hint) from error
        return cls(url.set(database=path))

    def __str__(self) -> str:
        as_typed = f"{self.url.drivername}:///{self.url.database}"
        if self.sqlite_file and make_url(as_typed) == self.url:  # SQLAlchemy would write 结果.db as %E7%BB%93…
            return as_typed
        return masked(self.url.render_as_string(hide_password=False))

    __repr__ = __str__

    @property
    def holds_secret(self) -> bool:
        """Tell whether the URL may contain a password, so that it must not be printed unmasked."""
        whole = self.url.render_as_string(hide_password=False)
        return masked(whole) != whole

    @property
    def sqlite_file(self) -> Path | None:
        """Return the file of a SQLite storage; None for a server."""
        return Path(self.url.database) if self.url.get_backend_name() == "sqlite" and self.url.database else None

    @contextmanager
    def opened(self, *, create: bool = False, curves: bool = True) -> Iterator[WideStorage]:
        """Connect until the block ends. Without `create`, a storage without studies is an error, not a new file.

        Without `curves`, finished trials are read without their epochs.

        Raises StorageError, from the block too, if the database is missing, down or of a newer Optuna, if it refuses
        access, or if the file is no database.
        """
        if not create:
            self._require_studies()
        else:
            self._require_folder()
        with self.explained():
            storage = self._connect()
            storage.curves = curves
            try:
                yield storage
            finally:
                storage.remove_session()
                let_go(storage.engine)

    def _connect(self) -> WideStorage:
        """Connect, and try again if the connection is made and then lost; one that is refused is refused again."""
        for pause in _LOST_AT_THE_START:
            try:
                return self._connect_once()
            except Exception as error:
                if self.sqlite_file or not is_away(error) or was_refused(error):
                    raise
                notice(f"storage {self}: {reason_of(error)}; trying again")
                time.sleep(pause)
        return self._connect_once()

    def _connect_once(self) -> WideStorage:
        engine = self._engine()
        try:
            if not tables_were_found(self.url):
                self._require_our_version(self._version(engine))
            return storage_on(engine, WideStorage if self.sqlite_file else FarStorage)
        except BaseException:
            let_go(engine)
            raise

    def _version(self, engine: Engine) -> str:
        """Return the version of Optuna's tables; make them if they are missing."""
        if not self.sqlite_file:
            if (known := self._tables_of_server(engine)) is not None:
                return known
            self._require_rights(engine)
            if server_tables.make(engine):
                return head_version()
        url = self.url.render_as_string(hide_password=False)
        with one_at_a_time(engine):  # else two processes could create the tables at once
            storage = RDBStorage(url, engine_kwargs=self._engine_options(), skip_compatibility_check=True)
        try:
            return storage.get_current_version()
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def _tables_of_server(self, engine: Engine) -> str | None:
        try:
            return server_tables.version(engine)
        except ProgrammingError:
            self._require_rights(engine)
            raise

    def _require_our_version(self, version: str) -> None:
        """Check Optuna's version of the tables; Optuna's own check would leave the connection open."""
        if version != head_version():
            raise StorageError(
                f"storage {self} was made by another version of Optuna",
                "use the version that made it (pip install -U face3d-tune), or `optuna storage upgrade`",
            )
        if not self.sqlite_file:
            note_tables(self.url)

    def _require_folder(self) -> None:
        if self.sqlite_file and not self.sqlite_file.parent.is_dir():
            hint = self._four_slashes() or "create it first"
            raise StorageError(f"storage {self}: folder {self.sqlite_file.parent} does not exist", hint)

    def _four_slashes(self) -> str | None:
        """Return the hint for three slashes where four were meant: the missing path exists from the root."""
        file = self.sqlite_file
        if file is None or file.is_absolute() or len(file.parts) < 2:
            return None
        root = Path("/")
        if not ((root / file).is_file() or ((root / file.parent).is_dir() and not file.parent.is_dir())):
            return None
        return f"three slashes name a file from here, four name it from the root: sqlite:////{file.as_posix()}"

    def holds_studies(self) -> bool:
        """Tell whether the storage exists, so that `opened` works without `create`. Raises StorageError."""
        if self.sqlite_file and not self.sqlite_file.is_file():
            return False
        with self.connected() as engine:
            if self.sqlite_file:
                return sqlalchemy.inspect(engine).has_table(_LAST_TABLE)
            if tables_were_found(self.url):
                return True
            version = self._tables_of_server(engine)
            if version == head_version():
                note_tables(self.url)
            return version is not None

    def _require_studies(self) -> None:
        hint = "make one with `face3d-tune run`, or name another with --storage"
        if self.sqlite_file and not self.sqlite_file.is_file():
            raise StorageError(f"storage {self}: file does not exist", self._four_slashes() or hint)
        if not self.holds_studies():
            raise NoStudiesError(f"storage {self} holds no studies", hint)

    @contextmanager
    def connected(self) -> Iterator[Engine]:
        """Connect to the bare database, whatever its content, until the block ends. Raises StorageError."""
        with self.explained():
            engine = self._engine()
            try:
                yield engine
            finally:
                let_go(engine)

    def writable(self) -> bool:
        """Tell whether studies may be stored, without storing any. Raises StorageError."""
        if self.sqlite_file:  # SQLite writes its journal beside the file
            existing = [self.sqlite_file] if self.sqlite_file.exists() else []
            return all(os.access(path, os.W_OK) for path in (*existing, self.sqlite_file.parent))
        with self.connected() as engine, engine.connect() as database:
            if database.execute(text("show transaction_read_only")).scalar_one() == "on":  # also on a standby
                return False
            table = sqlalchemy.inspect(engine).has_table("trials")
            right = "table_privilege('trials', 'insert')" if table else "schema_privilege(current_schema(), 'create')"
            return bool(database.execute(text(f"select has_{right}")).scalar_one())

    def _engine(self) -> Engine:
        return self._new_engine() if self.sqlite_file else engine_for(self.url, self._new_engine)

    def _new_engine(self) -> Engine:
        url = self.url if self.sqlite_file else self.url.set(drivername=DRIVER)
        try:
            return sqlalchemy.create_engine(url, **self._engine_options())
        except (ImportError, NoSuchModuleError) as error:
            raise StorageError(
                f"storage {self} needs psycopg, which is not installed", "pip install 'face3d-tune[postgres]'"
            ) from error

    def _engine_options(self) -> dict[str, Any]:
        if self.sqlite_file:
            # No pool: Optuna keeps its engine when it refuses a file, and a pool would keep the file open.
            return {"poolclass": NullPool, "connect_args": patience(str(self))}
        # Without keepalives a server that vanished from the network would be waited for.
        connect: dict[str, Any] = {"connect_timeout": _CONNECT_WAIT, "keepalives_idle": 10, "keepalives_interval": 5}
        connect |= {"keepalives_count": 3, "tcp_user_timeout": 20_000}
        connect |= {"client_encoding": "utf8"}  # whatever a role, a database or PGCLIENTENCODING has for a default
        connect |= {"prepare_threshold": None}  # a pooler gives each transaction another server process
        options = {"pool_events": POOL_EVENTS, "pool_size": 2, "max_overflow": 0, "connect_args": connect}
        options |= {"use_native_hstore": False}
        with suppress(ImportError):  # `_engine` says what is missing
            options["module"] = bounded_psycopg.driver()
        return options

    def explained(self) -> AbstractContextManager[None]:
        """Turn an error of a driver or of Optuna in the block into one line about this storage."""
        return explained(str(self), sqlite=self.sqlite_file is not None, user=self.url.username)

    def _require_rights(self, engine: Engine) -> None:
        """Ask the server: Optuna would find out itself, and leave its connection open."""
        question = text(
            "select to_regclass('trials') is null, "
            "has_schema_privilege(coalesce(current_schema(), 'public'), 'create'), "
            "coalesce(has_table_privilege(to_regclass('trials'), 'select'), false)"
        )
        with engine.connect() as database:
            new, may_create, may_read = database.execute(question).one()
        if not (may_create if new else may_read):
            what = "create tables" if new else "read the tables of studies"
            raise StorageError(f"storage {self} cannot be used: its user may not {what}", rights(self.url.username))

    @contextmanager
    def searching(self, hint: str = _OWN_FILE) -> Iterator[None]:
        """Take the right to search. SQLite gives it to one process at a time, PostgreSQL to any number.

        SQLite has no SELECT … FOR UPDATE, so two workers could claim the same trial. `hint` is shown while another
        process has the right. Raises StorageError.
        """
        if not self.sqlite_file:
            yield
            return
        self._require_folder()  # else filelock would create a mistyped folder
        with right_to_search(self.sqlite_file, str(self), hint):
            yield
