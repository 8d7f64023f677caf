-- The oldest migration that a program must know to work on these tables, where several versions of it may do so at
-- a time. A migration that takes something away that older programs need sets this to its own number.
ALTER TABLE state ADD COLUMN compatible_from BIGINT NOT NULL DEFAULT 7;
INSERT INTO state (id, identity) VALUES (1, REPLACE(CAST(gen_random_uuid() AS TEXT), '-', ''))
ON CONFLICT DO NOTHING;
