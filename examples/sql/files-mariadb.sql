-- The table of the example app. Your app has its own; nothing of ours reads it.
-- InnoDB, because a table without transactions can't commit together with the outbox;
-- a binary collation, because /Plan.md and /plan.md are two files.
CREATE TABLE files (
    id        varchar(64)  NOT NULL PRIMARY KEY,
    owner_id  varchar(64)  NOT NULL,
    path      varchar(700) NOT NULL,
    is_folder smallint     NOT NULL DEFAULT 0,
    version   integer      NOT NULL DEFAULT 1,
    UNIQUE (owner_id, path)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
GRANT SELECT, INSERT, UPDATE, DELETE ON files.files TO 'files_app'@'%';
