"""Optuna's tables on a PostgreSQL server: found by one question, and made by one.

Optuna asks for each table and each type, and creates one after the other. Where an answer takes half a second that is
more than a minute.
"""

from sqlalchemy import create_mock_engine
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ProgrammingError

from face3d_tune.storage import claims
from face3d_tune.storage.answers import answers_of, ask
from face3d_tune.storage.far_storage import ALL_STUDIES
from face3d_tune.storage.optuna_internals import TABLES, first_rows
from face3d_tune.storage.questions import question
from face3d_tune.storage.server_lock import one_at_a_time

_VERSION = question("select version_num from alembic_version")
_MISSING_TABLES = question(
    "select to_regclass('studies') is null, to_regclass('alembic_version') is null", lasting=False
)
_MISSING = "42P01"  # PostgreSQL's code for a table that does not exist


def version(engine: Engine) -> str | None:
    """Return the version of Optuna's tables; None if there are none. Raises what SQLAlchemy raises.

    The studies are asked for at once, for they come next.
    """
    answers = answers_of(engine)
    if answers.known(_VERSION) == []:
        return None
    for asked in (_VERSION, ALL_STUDIES), (_VERSION,):
        try:
            return next((str(found) for (found,) in answers.ask(*asked)), None)
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _MISSING:
                raise
    answers.learn(_VERSION, [])
    return None


def make(engine: Engine) -> bool:
    """Make all tables, or none; return False if only some are missing, which is left to Optuna."""
    with one_at_a_time(engine, lambda: [_MISSING_TABLES]):
        studies, versions = ask(engine, _MISSING_TABLES)[0]
        if studies and versions:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT", no_parameters=True) as database:
                database.exec_driver_sql(_statements(engine))  # to a server, one text is one transaction
        return bool(studies or not versions)


def _statements(engine: Engine) -> str:
    made: list[str] = []
    mock = create_mock_engine(
        "postgresql+psycopg://", lambda sql, *_: made.append(str(sql.compile(dialect=engine.dialect)))
    )
    for metadata in (TABLES[0].metadata, claims.tables):
        metadata.create_all(mock, checkfirst=False)
    made.append(
        "create table alembic_version "
        "(version_num varchar(32) not null, constraint alembic_version_pkc primary key (version_num))"
    )
    for table, values in first_rows().items():
        literals = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in values.values())
        made.append(f"insert into {table} ({', '.join(values)}) values ({literals})")
    return ";\n".join(made)
