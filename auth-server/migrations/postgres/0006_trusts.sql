CREATE TABLE trusts (
    name      TEXT COLLATE "C" PRIMARY KEY,
    issuer    TEXT COLLATE "C" NOT NULL,
    audience  TEXT COLLATE "C" NOT NULL CHECK (audience <> ''),
    subject   TEXT COLLATE "C" NOT NULL CHECK (subject <> ''),
    claims    TEXT COLLATE "C" NOT NULL,
    keys_url  TEXT COLLATE "C",
    keys      TEXT COLLATE "C",
    ca        TEXT COLLATE "C",
    created   BIGINT NOT NULL,
    last_used BIGINT,
    CHECK (keys IS NULL OR (keys_url IS NULL AND ca IS NULL))
);
CREATE TRIGGER trusts_changed
AFTER INSERT OR UPDATE OF name, issuer, audience, subject, claims, keys_url, keys, ca, created OR DELETE
ON trusts EXECUTE FUNCTION raise_policy_version();
