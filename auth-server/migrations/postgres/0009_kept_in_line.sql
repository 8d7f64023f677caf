CREATE INDEX grants_by_expiry ON grants (expires) WHERE expires IS NOT NULL;
CREATE INDEX counters_by_counter ON counters (counter);

CREATE TABLE sign_in_address_count (
    id    BIGINT PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO sign_in_address_count (id, value) SELECT 1, COUNT(*) FROM sign_in_addresses;
CREATE FUNCTION count_sign_in_addresses_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE sign_in_address_count SET value = value + (SELECT COUNT(*) FROM changed);
    RETURN NULL;
END
$$;
CREATE FUNCTION count_sign_in_addresses_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE sign_in_address_count SET value = value - (SELECT COUNT(*) FROM changed);
    RETURN NULL;
END
$$;
CREATE TRIGGER sign_in_addresses_inserted AFTER INSERT ON sign_in_addresses
REFERENCING NEW TABLE AS changed EXECUTE FUNCTION count_sign_in_addresses_inserted();
CREATE TRIGGER sign_in_addresses_deleted AFTER DELETE ON sign_in_addresses
REFERENCING OLD TABLE AS changed EXECUTE FUNCTION count_sign_in_addresses_deleted();
