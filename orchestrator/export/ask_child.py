"""The child of `ask`: limits itself, locks DuckDB, answers one question with one JSON object."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any

import duckdb

from orchestrator.errors import InputError

HEADROOM = 2 << 30
"""Bytes of address space beside DuckDB's own limit: libraries, stacks of threads, the answer."""
MAX_ANSWER = 64 << 20
"""Characters of JSON."""

LOCKS: Mapping[str, Any] = {
    "errors_as_json": True,  # gives the position of a mistake
    "temp_directory": "",  # nothing is spilled: no file may be written
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "enable_external_access": False,
    "lock_configuration": True,
}
"""Set in this order once the views exist; ``allowed_paths`` before them."""


def main() -> int:
    request = json.load(sys.stdin)
    threads = request["threads"] or min(4, os.cpu_count() or 1)
    limit(request["memory_mib"] << 20, request["timeout_s"] * threads)
    try:
        text = json.dumps(_answer(request, threads), allow_nan=False)
        if len(text) > MAX_ANSWER:
            raise InputError(
                "E-SQL-MEMORY",
                f"the answer is larger than {MAX_ANSWER >> 20} MiB",
                fix="ask for fewer rows: --limit ROWS",
            )
    except InputError as error:
        text = _told(error)
    except MemoryError:
        text = _told(_memory(request))
    sys.stdout.write(text)
    return 0


def _told(error: InputError) -> str:
    return json.dumps(
        {"error": error.id, "what": error.what, "where": error.where, "fix": error.fix}
    )


def limit(memory: int, cpu_s: float) -> None:
    """Memory, CPU time, no core file, no file written."""
    for kind, most in (
        (resource.RLIMIT_AS, memory + HEADROOM),
        (resource.RLIMIT_CPU, math.ceil(cpu_s) + 10),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def _answer(request: dict[str, Any], threads: int) -> dict[str, Any]:
    sql, rows = request["sql"], request["rows"]
    try:
        connection = locked(request["tables"], threads, request["memory_mib"])
        check(connection, sql)
        result = connection.execute(sql)
        columns = [(name, str(type)) for name, type, *_ in result.description]
        found = result.fetchmany(rows + 1)
    except duckdb.OutOfMemoryException:
        raise _memory(request) from None
    except duckdb.Error as error:
        raise _refused(error, sql) from None
    return {
        "columns": columns,
        "rows": [[_plain(value) for value in row] for row in found[:rows]],
        "truncated": len(found) > rows,
    }


def locked(tables: dict[str, str], threads: int, memory_mib: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        config={"memory_limit": f"{memory_mib}MiB", "threads": str(threads)}
    )
    for name, path in tables.items():
        quoted = path.replace("'", "''")
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{quoted}')")
    paths = ", ".join("'" + path.replace("'", "''") + "'" for path in tables.values())
    connection.execute(f"SET allowed_paths = [{paths}]")
    for name, value in LOCKS.items():
        connection.execute(f"SET {name} = {json.dumps(value) if value != '' else chr(39) * 2}")
    return connection


def check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        kinds = [statement.type for statement in connection.extract_statements(sql)]
    except ValueError:  # a kind of statement that DuckDB's own Python enum does not know
        kinds = []
    if kinds != [duckdb.StatementType.SELECT]:
        raise InputError(
            "E-SQL-READING",
            "not one SELECT",
            fix="ask one question at a time; nothing can be written or set",
        )


def _refused(error: duckdb.Error, sql: str) -> InputError:
    """DuckDB's message on one line, and where in the question it points."""
    _, _, text = str(error).partition(": ")
    try:
        told = json.loads(text)
    except ValueError:
        told = {"exception_message": str(error)}
    what = str(told["exception_message"]).replace("\n", "; ")
    if isinstance(error, duckdb.PermissionException):
        fix = "a question sees the tables and nothing else: assay sql --tables"
        return InputError("E-SQL-LOCKED", what, where=_place(told, sql), fix=fix)
    fix = "names and types: assay sql --tables"
    return InputError("E-SQL-QUERY", what, where=_place(told, sql), fix=fix)


def _place(told: Mapping[str, Any], sql: str) -> str | None:
    """``line 2, column 7``, both from 1; DuckDB counts bytes."""
    if "position" not in told:
        return None
    before = sql.encode()[: int(told["position"])].decode(errors="ignore")
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _memory(request: Mapping[str, Any]) -> InputError:
    return InputError(
        "E-SQL-MEMORY",
        f"the question needs more than {request['memory_mib']} MiB of memory",
        fix="narrow it, or allow more: --memory MIB",
    )


def _plain(value: Any) -> Any:
    """A value as JSON data: no NaN and no infinity, times as ISO 8601, bytes as hex."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case decimal.Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case dict():
            return {str(_plain(k)): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case _:
            return str(value)


if __name__ == "__main__":
    raise SystemExit(main())
