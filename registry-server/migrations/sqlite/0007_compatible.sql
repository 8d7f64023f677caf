-- The oldest migration that a program must know to work on these tables, where several versions of it may do so at
-- a time. A file has one program.
ALTER TABLE state ADD COLUMN compatible_from INTEGER NOT NULL DEFAULT 7;
