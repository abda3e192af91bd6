"""
What a database of ours is made of, as text that two databases can be compared by.

`python -m tests.schema_dump` writes reconciler/db/schema.sql anew.
"""

import asyncio
import re
import subprocess
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.db.migrate import migrate
from reconciler.demo.postgres import EmbeddedPostgres, packaged_binaries

SCHEMA = Path("reconciler/db/schema.sql")

_TITLE = """\
-- What all migrations add up to: read this one, apply the others. Written by `make schema`; never edited.
-- The roles are made by roles.sql, the rows of reconciler.source and reconciler.migrations by `migrate`.

"""
_NOISE = re.compile(r"^(--.*|SET .*;|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)\n", re.MULTILINE)


def dump(dsn: str) -> str:
    """Return pg_dump's description of schema `reconciler`, less comments and settings of its session."""
    address = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    secret = address.pop("password", "")
    command = ["--schema-only", "--no-owner", "--schema=reconciler", make_conninfo(**address)]
    text = subprocess.run(
        [packaged_binaries() / "pg_dump", *command],
        env={"PGPASSWORD": secret},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", text)).strip() + "\n"


def main() -> None:
    """Write schema.sql from a server that was migrated from nothing."""
    with EmbeddedPostgres({"fsync": "off"}) as server:
        asyncio.run(migrate(server.dsn, "schema", print))
        SCHEMA.write_text(_TITLE + dump(server.dsn))


if __name__ == "__main__":
    main()
