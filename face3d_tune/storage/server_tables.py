"""Optuna's tables on a PostgreSQL server: found by one question, and made by one.

Optuna asks for each table and each type, and creates one after the other. Where an answer takes half a second that is
more than a minute.
"""

from sqlalchemy import create_mock_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ProgrammingError

from face3d_tune.storage import claims
from face3d_tune.storage.optuna_internals import TABLES, first_rows
from face3d_tune.storage.server_lock import one_at_a_time

_MISSING = "42P01"  # PostgreSQL's code for a table that does not exist


def version(engine: Engine) -> str | None:
    """Return the version of Optuna's tables; None if there are none. Raises what SQLAlchemy raises."""
    try:
        with engine.connect() as database:
            found: str | None = database.execute(text("select version_num from alembic_version")).scalar_one_or_none()
            return found
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _MISSING:
            raise
        return None


def make(engine: Engine) -> bool:
    """Make all tables, or none; return False if only some are missing, which is left to Optuna."""
    with one_at_a_time(engine), engine.begin() as database:
        question = "select to_regclass('studies') is null, to_regclass('alembic_version') is null"
        studies, versions = database.execute(text(question)).one()
        if studies and versions:
            database.execution_options(no_parameters=True).exec_driver_sql(_statements(engine))
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
