-- What joins leave behind, and what waits to be sent to devices.

-- The fixed part of a session that was joined; its counters are in the row of `session` of the same id.
CREATE TABLE joined (
    session_id   BLOB    NOT NULL PRIMARY KEY,
    dev_eui      BLOB    NOT NULL,           -- 8 bytes, most significant first
    dev_addr     INTEGER NOT NULL,
    mac_version  TEXT    NOT NULL,
    wrapped_keys BLOB    NOT NULL,           -- RFC 3394 under store.key_encryption_key: store/joins.py
    joined_at    INTEGER NOT NULL            -- nanoseconds since the Unix epoch
) STRICT, WITHOUT ROWID;

CREATE TABLE join_history (
    join_id        BLOB    NOT NULL PRIMARY KEY,
    dev_eui        BLOB    NOT NULL,
    join_nonce     INTEGER NOT NULL,
    last_dev_nonce INTEGER,
    rj_count1      INTEGER,
    state          BLOB    NOT NULL          -- MessagePack: store/joins.py
) STRICT, WITHOUT ROWID;
CREATE INDEX join_history_dev_eui ON join_history (dev_eui);

-- Of devices whose DevNonce is random: complete, because whatever is forgotten could be played back.
CREATE TABLE dev_nonce (
    join_id   BLOB    NOT NULL,
    dev_nonce INTEGER NOT NULL,
    PRIMARY KEY (join_id, dev_nonce)
) STRICT, WITHOUT ROWID;

CREATE TABLE downlink (
    queue_id   INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, although the queue runs empty
    target     ANY     NOT NULL,                   -- DevEUI: 8 bytes; multicast group: its name
    command_id TEXT    NOT NULL,
    state      BLOB    NOT NULL,                   -- MessagePack: store/downlinks.py
    UNIQUE (target, command_id)
) STRICT;

-- What was sent in the last hour, for the duty cycle.
CREATE TABLE airtime (
    id          INTEGER PRIMARY KEY,
    gateway     BLOB    NOT NULL,
    band_hz     INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    duration_us INTEGER NOT NULL
) STRICT;
CREATE INDEX airtime_at ON airtime (at);
