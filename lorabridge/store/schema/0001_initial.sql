-- What survives a restart. One transaction carries a frame's new counter and its outgoing record.

CREATE TABLE session (
    session_id BLOB    NOT NULL PRIMARY KEY,
    dev_eui    BLOB    NOT NULL,             -- 8 bytes, most significant first
    generation INTEGER NOT NULL,             -- compare-and-set
    fcnt_up    INTEGER,
    updated_at INTEGER NOT NULL,             -- nanoseconds since the Unix epoch
    state      BLOB    NOT NULL              -- MessagePack: store/sessions.py
) STRICT, WITHOUT ROWID;

-- Frames of devices with counter_policy "confirm": complete, because whatever is forgotten could be played back.
CREATE TABLE heard (
    session_id BLOB    NOT NULL,
    fcnt32     INTEGER NOT NULL,
    mic        BLOB    NOT NULL,
    PRIMARY KEY (session_id, fcnt32, mic)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    id        INTEGER PRIMARY KEY,
    kind      INTEGER NOT NULL,              -- store/outbox.py, KIND_CODES
    dev_eui   BLOB,
    stored_at INTEGER NOT NULL,
    payload   BLOB    NOT NULL
) STRICT;

-- Records that the endpoint would not take: kept for the operator, never sent again by themselves.
CREATE TABLE parked (
    id        INTEGER PRIMARY KEY,
    kind      INTEGER NOT NULL,
    dev_eui   BLOB,
    stored_at INTEGER NOT NULL,
    payload   BLOB    NOT NULL,
    parked_at INTEGER NOT NULL,
    reason    TEXT    NOT NULL
) STRICT;

CREATE TABLE dropped (
    kind    INTEGER PRIMARY KEY,
    records INTEGER NOT NULL
) STRICT;
