-- Whose share of sessions and unfinished bytes an upload session counts to: `subject:NAME`, or for
-- whoever is not signed in `network:ADDRESS/BITS`.
ALTER TABLE uploads ADD COLUMN pusher TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE uploads SET pusher = 'subject:' || subject;
CREATE INDEX uploads_by_pusher ON uploads (pusher, touched, received);

-- Referrers of an artifact type, however many others there are.
CREATE INDEX manifests_by_artifact_type ON manifests (repository, subject, artifact_type, digest)
    WHERE subject IS NOT NULL;
