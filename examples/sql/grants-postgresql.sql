-- After `alembic upgrade head`, by the role that migrated or by an administrator.

-- The app writes changes and can't read, alter or remove them. The id comes from an identity
-- column, so no right on a sequence is needed.
GRANT INSERT ON file_event_outbox TO files_app;
-- It says who may watch whose folder. Not where a view over its own shares stands for this table.
GRANT SELECT, INSERT, UPDATE, DELETE ON file_event_grant TO files_app;

-- The sidecar moves rows out of the outbox into the journal, and prunes the journal.
GRANT SELECT, DELETE ON file_event_outbox TO events_sidecar;
GRANT SELECT, INSERT, DELETE ON file_event_journal TO events_sidecar;
-- UPDATE is also what locking the row asks for: SELECT ... FOR UPDATE.
GRANT SELECT, UPDATE ON file_event_state TO events_sidecar;
GRANT SELECT, INSERT, UPDATE, DELETE ON file_event_subscription TO events_sidecar;
GRANT SELECT ON file_event_grant TO events_sidecar;
-- It compares the schema with its own version at the start.
GRANT SELECT ON file_event_schema_version TO events_sidecar;

-- An auditor reads what happened, by the views or in the journal itself, and nothing else.
GRANT SELECT ON file_event_journal, file_event_audit, file_event_audit_by_path,
    file_event_audit_by_actor TO events_auditor;
-- Only for `flask events audit`, which reads where the journal begins and ends.
GRANT SELECT ON file_event_state TO events_auditor;

-- Only for appending by HTTP and by `flask events append`, which write as the app does:
-- GRANT INSERT ON file_event_outbox TO events_sidecar;
