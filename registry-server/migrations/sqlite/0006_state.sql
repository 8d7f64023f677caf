-- One row, where the database is not a file beside its objects: which registry it is. The directory of
-- the objects says the same.
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    identity TEXT NOT NULL
);
