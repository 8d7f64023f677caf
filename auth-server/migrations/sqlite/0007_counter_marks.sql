-- How far the sequence was at times, an hour of the running server apart: by these a counter is
-- known to be older than every token that it could void, and goes. `at` never decreases; see
-- `acl::counters`.
CREATE TABLE counter_marks (
    id       INTEGER PRIMARY KEY,
    at       BIGINT NOT NULL,
    sequence BIGINT NOT NULL
);
