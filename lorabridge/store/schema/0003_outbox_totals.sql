-- Totals of the outbox, so that no start counts it over again; what was dropped and not told; what is to be tried again.

-- Of the records with an id up to `counted_to`, which is the same in every row; those above are counted at the start.
CREATE TABLE outbox_total (
    kind       INTEGER PRIMARY KEY,
    counted_to INTEGER NOT NULL,
    records    INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    oldest     INTEGER NOT NULL              -- no record of the kind has a smaller id
) STRICT;

-- What was dropped before there was an event for it is in the counters only.
ALTER TABLE dropped ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dropped ADD COLUMN since INTEGER NOT NULL DEFAULT 0;  -- of the first that was not told, ns
UPDATE dropped SET told = records;

-- Parked records that an operator wants tried again: written beside a running bridge, which sees to it.
CREATE TABLE retry (id INTEGER PRIMARY KEY) STRICT;
