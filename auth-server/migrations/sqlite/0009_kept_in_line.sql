-- What is cleared away by these is found by them, and not by a look at every row.
CREATE INDEX grants_by_expiry ON grants (expires) WHERE expires IS NOT NULL;
CREATE INDEX counters_by_counter ON counters (counter);

-- How many rows `sign_in_addresses` has, so that those beyond the limit are known without counting.
CREATE TABLE sign_in_address_count (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO sign_in_address_count (id, value) SELECT 1, COUNT(*) FROM sign_in_addresses;
CREATE TRIGGER sign_in_addresses_inserted AFTER INSERT ON sign_in_addresses
BEGIN UPDATE sign_in_address_count SET value = value + 1; END;
CREATE TRIGGER sign_in_addresses_deleted AFTER DELETE ON sign_in_addresses
BEGIN UPDATE sign_in_address_count SET value = value - 1; END;
