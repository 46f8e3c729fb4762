-- The table of the example app. Your app has its own; nothing of ours reads it.
CREATE TABLE files (
    id        varchar(64)  NOT NULL PRIMARY KEY,
    owner_id  varchar(64)  NOT NULL,
    path      varchar(700) NOT NULL,
    is_folder smallint     NOT NULL DEFAULT 0,
    version   integer      NOT NULL DEFAULT 1,
    UNIQUE (owner_id, path)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON files TO files_app;
