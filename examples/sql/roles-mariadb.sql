-- Once, before the first migration, by an administrator. The same text for MariaDB and MySQL.
-- Four accounts: the app that writes changes, the sidecar that streams them, the one that migrates,
-- and an auditor. An app that has an account already keeps it; give that one the grant of
-- grants-mariadb.sql. `files` is the database of the app; '%' lets an account in from any host.

CREATE USER 'files_app'@'%' IDENTIFIED BY 'change-me-app';
CREATE USER 'events_sidecar'@'%' IDENTIFIED BY 'change-me-sidecar';
CREATE USER 'events_migration'@'%' IDENTIFIED BY 'change-me-migration';
CREATE USER 'events_auditor'@'%' IDENTIFIED BY 'change-me-auditor';

-- The migrating account makes our tables, table by table by name: it can't touch anybody else's.
GRANT CREATE, ALTER, DROP, INDEX, SELECT, INSERT, UPDATE, DELETE
    ON files.file_event_schema_version TO 'events_migration'@'%';
GRANT CREATE, ALTER, DROP, INDEX, SELECT, INSERT, UPDATE
    ON files.file_event_state TO 'events_migration'@'%';
GRANT CREATE, ALTER, DROP, INDEX ON files.file_event_outbox TO 'events_migration'@'%';
-- SELECT, because nobody makes a view over what he may not read.
GRANT CREATE, ALTER, DROP, INDEX, SELECT ON files.file_event_journal TO 'events_migration'@'%';
GRANT CREATE, ALTER, DROP, INDEX ON files.file_event_subscription TO 'events_migration'@'%';
GRANT CREATE, ALTER, DROP, INDEX ON files.file_event_grant TO 'events_migration'@'%';
-- CREATE stands here only so that the grant can be given before the view is there.
GRANT CREATE, CREATE VIEW, DROP ON files.file_event_audit TO 'events_migration'@'%';
GRANT CREATE, CREATE VIEW, DROP ON files.file_event_audit_by_path TO 'events_migration'@'%';
GRANT CREATE, CREATE VIEW, DROP ON files.file_event_audit_by_actor TO 'events_migration'@'%';
