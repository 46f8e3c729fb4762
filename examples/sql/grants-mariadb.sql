-- After `alembic upgrade head`, by an administrator. The same text for MariaDB and MySQL.
-- `files` is the database of the app.

-- The app writes changes and can't read, alter or remove them.
GRANT INSERT ON files.file_event_outbox TO 'files_app'@'%';
-- It says who may watch whose folder. Not where a view over its own shares stands for this table.
GRANT SELECT, INSERT, UPDATE, DELETE ON files.file_event_grant TO 'files_app'@'%';

-- The sidecar moves rows out of the outbox into the journal, and prunes the journal.
GRANT SELECT, DELETE ON files.file_event_outbox TO 'events_sidecar'@'%';
GRANT SELECT, INSERT, DELETE ON files.file_event_journal TO 'events_sidecar'@'%';
-- On MySQL, UPDATE is also what locking the row asks for: SELECT ... FOR UPDATE.
GRANT SELECT, UPDATE ON files.file_event_state TO 'events_sidecar'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON files.file_event_subscription TO 'events_sidecar'@'%';
GRANT SELECT ON files.file_event_grant TO 'events_sidecar'@'%';
-- It compares the schema with its own version at the start.
GRANT SELECT ON files.file_event_schema_version TO 'events_sidecar'@'%';

-- An auditor reads what happened, by the views or in the journal itself, and nothing else.
GRANT SELECT ON files.file_event_journal TO 'events_auditor'@'%';
GRANT SELECT ON files.file_event_audit TO 'events_auditor'@'%';
GRANT SELECT ON files.file_event_audit_by_path TO 'events_auditor'@'%';
GRANT SELECT ON files.file_event_audit_by_actor TO 'events_auditor'@'%';
-- Only for `flask events audit`, which reads where the journal begins and ends.
GRANT SELECT ON files.file_event_state TO 'events_auditor'@'%';

-- Only for appending by HTTP and by `flask events append`, which write as the app does:
-- GRANT INSERT ON files.file_event_outbox TO 'events_sidecar'@'%';
