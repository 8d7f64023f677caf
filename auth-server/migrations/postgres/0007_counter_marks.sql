-- Marks are counted by their ids, so that the server gives them: an identity would leave gaps.
CREATE TABLE counter_marks (
    id       BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    sequence BIGINT NOT NULL
);
