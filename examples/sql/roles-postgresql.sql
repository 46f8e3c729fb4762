-- Once, before the first migration, by an administrator of the database.
-- Four roles: the app that writes changes, the sidecar that streams them, the one that migrates,
-- and an auditor. An app that has a role already keeps it; give that one the grant of
-- grants-postgresql.sql.

CREATE ROLE files_app LOGIN PASSWORD 'change-me-app';
CREATE ROLE events_sidecar LOGIN PASSWORD 'change-me-sidecar';
CREATE ROLE events_migration LOGIN PASSWORD 'change-me-migration';
CREATE ROLE events_auditor LOGIN PASSWORD 'change-me-auditor';

-- The migrating role makes our tables and owns them. It can't touch anybody else's.
GRANT USAGE, CREATE ON SCHEMA public TO events_migration;
GRANT USAGE ON SCHEMA public TO files_app, events_sidecar, events_auditor;
