-- Whose share of sessions and unfinished bytes an upload session counts to: `subject:NAME`, or for
-- whoever is not signed in `network:ADDRESS/BITS`.
ALTER TABLE uploads ADD COLUMN pusher TEXT NOT NULL DEFAULT '';
UPDATE uploads SET pusher = 'subject:' || subject;
CREATE INDEX uploads_by_pusher ON uploads (pusher, touched, received);
