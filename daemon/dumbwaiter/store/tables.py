"""The schema. Every column is explained here; `migrations/` brings an older database to it.

Paths and keys are stored as the bytes they are (file names need not be UTF-8) and split into parent and name, where
the parent begins with the name of the tree's first folder (a watch or a provider). So one index on (parent, name)
answers look-up and listing of a tree, and comparing bytes gives the same order in every database.
"""

from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    literal_column,
)
from sqlalchemy.schema import CreateTable

CHANNEL = "dumbwaiter"  # a server's NOTIFY with each change of the catalog
SCHEMA = "0013"  # the newest revision in migrations/versions


class PathBytes(TypeDecorator[str]):
    """Text with surrogates in Python, the file system's bytes in the database."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.encode("utf-8", "surrogateescape")

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else bytes(value).decode("utf-8", "surrogateescape")


class Json(TypeDecorator[Any]):
    """A value that msgspec can write, as text; read back as plain objects."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else msgspec.json.decode(value)


# SQLite gives "INTEGER PRIMARY KEY" its fast row number only under that very name.
Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host", String(32), nullable=False),  # the installation whose disk holds the file
    Column("watch", Text, nullable=False),  # name of the watch, "put" for files named on the command line
    Column("parent", PathBytes, nullable=False),  # "WATCH/folder" of the file
    Column("name", PathBytes, nullable=False),
    Column("provider", Text, nullable=False),
    # the stamp: which version of the file this job is about
    Column("inode", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # model.State
    Column("key", Text),  # remote name, settled before the first byte
    Column("grant", Text),  # session ticket, JSON; a secret, so cleared when the upload ends
    Column("checkpoint", Text),  # the transport's place, JSON; cleared with the grant
    Column("receipt", Json),  # model.Receipt, once stored
    Column("digest", Text),  # of the whole content, known when it is stored: see `digest`
    Column("sent", BigInteger, nullable=False, default=0),  # bytes the server acknowledged
    Column("resent", BigInteger, nullable=False, default=0),  # bytes sent more than once, at most
    Column("attempts", Integer, nullable=False, default=0),  # failures in a row
    Column("due_at", Float, nullable=False),  # not before
    Column("lease", String(32)),  # who is at work; never a state
    Column("lease_until", Float),
    Column("error", Text),  # the latest failure, a sentence
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("proposed", Text),  # the key that the watch's rules settled on, before the first byte; null where none may
    Column("by_hand", Boolean, nullable=False, default=False, server_default=false()),  # a person ordered it: now
    Column("grant_until", Float),  # when the session ticket ends, where that is known
    UniqueConstraint(
        "host", "parent", "name", "provider", "inode", "size", "mtime_ns", "ctime_ns", name="jobs_version"
    ),
)

# A partial index serves only queries that repeat its condition to the letter, so these stand here once, and without a
# type: a Boolean would be rendered as "= 1".
IS_OPEN: ColumnElement[bool] = literal_column("state IN ('pending', 'stored')")
IS_SHOWN: ColumnElement[bool] = literal_column("state IN ('pending', 'stored', 'rejected')")
IS_CURRENT: ColumnElement[bool] = literal_column("current")
IS_BY_HAND: ColumnElement[bool] = literal_column("state IN ('pending', 'stored') AND by_hand")
IS_BEGUN: ColumnElement[bool] = literal_column("state IN ('pending', 'stored') AND \"grant\" IS NOT NULL")
IS_SUPERSEDED: ColumnElement[bool] = literal_column("state = 'superseded'")
IS_FAILED: ColumnElement[bool] = literal_column("error IS NOT NULL")
IS_AFTER: ColumnElement[bool] = literal_column("what = 'after' AND due_at IS NOT NULL")

entries = Table(
    "entries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host", String(32), nullable=False),
    Column("provider", Text, nullable=False),
    Column("key", Text, nullable=False),  # exactly as the provider knows it
    Column("key_parent", PathBytes, nullable=False),  # "PROVIDER/folder" in the keys tree, escaped
    Column("key_name", PathBytes, nullable=False),
    Column("watch", Text, nullable=False),  # empty, as parent and name: none of ours, the provider's list shows it
    Column("parent", PathBytes, nullable=False),  # "WATCH/folder" in the files tree
    Column("name", PathBytes, nullable=False),
    Column("current", Boolean, nullable=False),  # the newest version under its path; older ones stay in keys/
    Column("inode", BigInteger, nullable=False),  # the stamp tells whether the local original still is this version
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False),
    Column("digest", Text),
    Column("etag", Text, nullable=False),
    Column("url", Text),
    Column("verified", Text, nullable=False),  # how the bytes were compared with the original's
    Column("facts", Json, nullable=False),
    Column("stored_at", Float, nullable=False),  # by us; for what the provider's list alone shows, as it says
    Column("listed_at", Float),  # begin of the latest walk through the provider's list that met it
    Column("unlisted_at", Float),  # when a walk that met it no more ended; only ours stay then
    # files of equal content may share a key; other content under it takes their entries away
    UniqueConstraint("provider", "key", "parent", "name", name="entries_file"),
)

# What is to be done here once a job ended: a rule's action on the file, or telling somebody. A row goes when it is done.
errands = Table(
    "errands",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host", String(32), nullable=False),
    Column("job", BigInteger),
    Column("watch", Text, nullable=False),
    Column("parent", PathBytes, nullable=False),  # as the job's
    Column("name", PathBytes, nullable=False),
    Column("what", String(16), nullable=False),  # "after", or the key of a hook: "on_done", ...
    Column("facts", Json, nullable=False),  # what it needs to know; no secret
    Column("due_at", Float),  # null: given up, until a person's `retry`
    Column("attempts", Integer, nullable=False, default=0),
    Column("error", Text),  # the latest failure, a sentence
    Column("created_at", Float, nullable=False),
)

listings = Table(
    "listings",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("started_at", Float, nullable=False),  # of the walk through the provider's list
    Column("cursor", Text),  # where it goes on; empty: at the beginning
    Column("whole", Boolean, nullable=False),  # nothing was passed over so far
    Column("ended_at", Float),  # empty: under way, or broken off
)

counters = Table(
    "counters",
    metadata,
    Column("host", String(32), primary_key=True),
    Column("name", String(32), primary_key=True),  # bytes_sent, bytes_resent, grants_requested
    Column("value", BigInteger, nullable=False),
)

# What a person has stopped for a while: a provider, a watch, or "" for everything.
pauses = Table(
    "pauses",
    metadata,
    Column("host", String(32), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("until", Float),  # null: until a person says otherwise
)

# Who works under an installation's name, where several machines share a database.
machines = Table(
    "machines",
    metadata,
    Column("host", String(32), primary_key=True),
    Column("machine", Text, nullable=False),  # a boot of it, and the state folder
    Column("seen_at", Float, nullable=False),  # the latest sign of life, by the server's clock
)

surveyed = Table(
    "surveyed",
    metadata,
    Column("host", String(32), primary_key=True),
    Column("parent", PathBytes, primary_key=True),  # "WATCH/folder"; the journal knows every file of it
    Column("files", BigInteger, nullable=False),  # how many: tells how long the next rescan will take
    Column("digest", LargeBinary, nullable=False),  # of the watch's rules and what the folder held, see scan.digest
    sqlite_with_rowid=False,
)

# The watched folders at which a file system was mounted when they were last seen: without it, the empty folder below
# must not be taken for one whose files were deleted.
mounted = Table(
    "mounted",
    metadata,
    Column("host", String(32), primary_key=True),
    Column("path", PathBytes, primary_key=True),
    sqlite_with_rowid=False,
)


def _index(name: str, *columns: Column[Any], where: ColumnElement[bool] | None = None) -> Index:
    return Index(name, *columns, sqlite_where=where, info={"where": where})


# In the order of the migrations: of equals, SQLite's planner takes the youngest.
_indexes = [
    _index("jobs_due", jobs.c.host, jobs.c.due_at, where=IS_OPEN),
    _index("jobs_outbox", jobs.c.parent, jobs.c.name, where=IS_SHOWN),
    _index("jobs_proposed", jobs.c.provider, jobs.c.proposed, where=IS_OPEN),
    _index("entries_stored", entries.c.stored_at),
    _index("entries_keys", entries.c.key_parent, entries.c.key_name),
    _index("entries_files", entries.c.parent, entries.c.name, where=IS_CURRENT),
    _index("errands_due", errands.c.host, errands.c.due_at),
    _index("entries_content", entries.c.provider, entries.c.size, entries.c.digest),
    _index("jobs_by_hand", jobs.c.host, jobs.c.due_at, where=IS_BY_HAND),
    _index("jobs_begun", jobs.c.host, jobs.c.grant_until, where=IS_BEGUN),
    _index("jobs_superseded", jobs.c.state, where=IS_SUPERSEDED),
    _index("entries_watch", entries.c.watch, entries.c.current, where=IS_CURRENT),
    _index("errands_job", errands.c.job),
    _index("errands_failed", errands.c.due_at, where=IS_FAILED),
    _index("errands_after", errands.c.host, where=IS_AFTER),
]


def create(connection: Connection) -> None:
    """Makes all tables in an empty database, and their indexes."""
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table))
    for index in _indexes:
        if connection.dialect.name == "postgresql":  # said above it would load that dialect at every start
            index.dialect_options["postgresql"]["where"] = index.info["where"]
        index.create(connection)
