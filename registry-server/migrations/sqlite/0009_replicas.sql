-- Work that one of several servers on the same registry does at a time, and what they keep from it: who has it, until
-- when unless that is said again, and when the work last came to its end.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until INTEGER NOT NULL,
    done INTEGER NOT NULL
) WITHOUT ROWID;

-- Since when nothing may be changed, whichever server is asked.
ALTER TABLE state ADD COLUMN read_only INTEGER;

-- One row: how much there is of everything, as one of them counted it for all, in JSON.
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL,
    counted TEXT NOT NULL
);
