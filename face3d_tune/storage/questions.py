"""Questions to a database, several of which reach a far server in one journey."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, text

Rows: TypeAlias = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Question:
    """A question that only reads, with the values of its `:names`."""

    sql: str
    values: tuple[tuple[str, Any], ...] = ()
    lasting: bool = True  # whether an answer may be used again without the lock

    def reads(self, tables: set[str]) -> bool:
        """Tell whether the question reads one of these tables."""
        return not tables.isdisjoint(re.findall(r"\w+", self.sql.lower()))

    def filled(self, database: Connection) -> str:
        """Return the SQL for a PostgreSQL server, with its values."""
        return filled(database, self.sql, self._listed)

    def rows(self, database: Connection) -> Rows:
        """Return the rows that answer it now."""
        return database.execute(text(self.sql), self._listed).all()

    @property
    def _listed(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.values}


def question(sql: str, *, lasting: bool = True, **values: Any) -> Question:
    """Return a question with its values."""
    return Question(sql, tuple(values.items()), lasting)


def filled(database: Connection, sql: str, values: Mapping[str, Any]) -> str:
    """Return a statement for a PostgreSQL server with the values of its `:names`."""
    connection: Any = database.connection.driver_connection
    return str(connection.filled(str(text(sql).compile(dialect=database.dialect)), values))


def row_of_study(database: Connection, study_id: int) -> str:
    """Return the SQL that waits for the row of a study, and keeps it until the transaction ends.

    Optuna, too, numbers trials while it has this row. It must be a statement of its own before the one that counts the
    trials: a statement does not see what was stored while it waited.
    """
    return filled(database, "select study_id from studies where study_id = :study for update", {"study": study_id})


def ask_at_once(database: Connection, *statements: str) -> list[Rows]:
    """Execute statements without parameters, to a server in one journey; return the rows of each.

    The first one returns rows.
    """
    if database.dialect.name != "postgresql":
        results = (database.execute(text(statement)) for statement in statements)
        return [result.all() if result.returns_rows else [] for result in results]
    result = database.execution_options(no_parameters=True).exec_driver_sql("; ".join(statements))
    cursor: Any = result.cursor
    answers = [cursor.fetchall()]
    while cursor.nextset():
        answers.append(cursor.fetchall() if cursor.description else [])
    result.close()
    return answers
