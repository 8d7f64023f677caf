-- Machines that sign in with tokens of an issuer of their own: which tokens make one of them
-- `robot.NAME`. A name is a robot's or a trust's, never both.
CREATE TABLE trusts (
    name      TEXT PRIMARY KEY,
    issuer    TEXT NOT NULL,
    audience  TEXT NOT NULL CHECK (audience <> ''),
    -- A pattern that the claim `sub` must be within.
    subject   TEXT NOT NULL CHECK (subject <> ''),
    -- Further claims that must be there word for word: a JSON object of texts.
    claims    TEXT NOT NULL,
    -- Where the issuer's keys are: at this URL, or here as a key set, or where its discovery says.
    keys_url  TEXT,
    keys      TEXT,
    -- The only root certificates that the issuer's server is believed by, as PEM; else the system's.
    ca        TEXT,
    created   BIGINT NOT NULL,
    last_used BIGINT,
    CHECK (keys IS NULL OR (keys_url IS NULL AND ca IS NULL))
);

-- The policy is read from this table too, but for the time of the last use: see 0003.
CREATE TRIGGER trusts_inserted AFTER INSERT ON trusts
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER trusts_updated
AFTER UPDATE OF name, issuer, audience, subject, claims, keys_url, keys, ca, created ON trusts
BEGIN UPDATE policy_version SET value = value + 1; END;
CREATE TRIGGER trusts_deleted AFTER DELETE ON trusts
BEGIN UPDATE policy_version SET value = value + 1; END;
