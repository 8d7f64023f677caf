-- The keys that sign tokens, which are files beside a database of SQLite. A private key is sealed by one that
-- is not in the database (nonce, AES-256-GCM over PKCS#8), bound to its name and its algorithm.
CREATE TABLE signing_keys (
    name            TEXT COLLATE "C" PRIMARY KEY,
    algorithm       TEXT COLLATE "C" NOT NULL,
    state           TEXT COLLATE "C" NOT NULL,
    made            BIGINT NOT NULL,
    since           BIGINT NOT NULL,
    token_life_secs BIGINT NOT NULL,
    until           BIGINT,
    sealed          BYTEA NOT NULL
);

-- What tells that the keys are to be read again: they change for themselves, when time makes something due.
CREATE TABLE keys_version (
    id    BIGINT PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO keys_version (id, value) VALUES (1, 0);
CREATE FUNCTION raise_keys_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE keys_version
    SET value = GREATEST(value + 1, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT));
    RETURN NULL;
END
$$;
CREATE TRIGGER signing_keys_changed AFTER INSERT OR UPDATE OR DELETE ON signing_keys
EXECUTE FUNCTION raise_keys_version();
