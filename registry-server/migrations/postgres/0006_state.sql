-- One row, where the database is not a file beside its objects: which registry it is. The directory of
-- the objects says the same.
CREATE TABLE state (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    identity TEXT COLLATE "C" NOT NULL
);
