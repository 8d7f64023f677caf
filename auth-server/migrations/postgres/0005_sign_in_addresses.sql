CREATE TABLE sign_in_addresses (
    name    TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    seen    BIGINT NOT NULL,
    PRIMARY KEY (name, address)
);
CREATE INDEX sign_in_addresses_by_time ON sign_in_addresses (seen);
