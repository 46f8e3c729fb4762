-- The table of the example app. Your app has its own; nothing of ours reads it.
CREATE TABLE files (
    id        text    NOT NULL PRIMARY KEY,
    owner_id  text    NOT NULL,
    path      text    NOT NULL,
    is_folder integer NOT NULL DEFAULT 0,
    version   integer NOT NULL DEFAULT 1,
    UNIQUE (owner_id, path)
);
