-- Work that one of several servers on the same registry does at a time, and what they keep from it: who has it, until
-- when unless that is said again, and when the work last came to its end.
CREATE TABLE leases (
    name TEXT COLLATE "C" PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL,
    done BIGINT NOT NULL
);

-- Since when nothing may be changed, whichever server is asked.
ALTER TABLE state ADD COLUMN read_only BIGINT;

-- One row: how much there is of everything, as one of them counted it for all, in JSON.
CREATE TABLE totals (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    at BIGINT NOT NULL,
    counted TEXT COLLATE "C" NOT NULL
);

-- What does not know of these would delete what others hold, and write where they have agreed not to.
UPDATE state SET compatible_from = 9;
