-- Where users have signed in from, with the right password: a right password from there is let
-- through however many wrong ones arrive from elsewhere, also after a restart.
CREATE TABLE sign_in_addresses (
    name    TEXT NOT NULL,
    address TEXT NOT NULL,
    seen    BIGINT NOT NULL,
    PRIMARY KEY (name, address)
);
CREATE INDEX sign_in_addresses_by_time ON sign_in_addresses (seen);
