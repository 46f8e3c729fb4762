"""Tell file-sync clients what changed, and never lose a change.

A change is a row that the app inserts in its own transaction. One mover gives rows their position;
one tailer per worker reads each row once; each connection is a position moving along them.
"""
