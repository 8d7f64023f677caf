-- Where the objects are when they are not in the data directory: 's3', in a bucket that says the same identity.
ALTER TABLE state ADD COLUMN store TEXT;
