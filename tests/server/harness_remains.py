"""The application as it is, with a door that tells what its worker holds."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import gevent
from sqlalchemy import QueuePool

from events_app import sidecar
from wsgi import app

__all__ = ["app"]


@app.get("/remains")
def remains() -> dict[str, int]:
    """Collect the garbage of this process, and count what is left."""
    parts = sidecar.of(app)
    gc.collect()
    objects = gc.get_objects()
    pool = parts.database.engine.pool
    return {
        "streams": len(parts.admission),
        "cursors": parts.ledger.waiting,
        "pooled": pool.checkedout() if isinstance(pool, QueuePool) else 0,
        "descriptors": len(list(Path(f"/proc/{os.getpid()}/fd").iterdir())),
        "greenlets": sum(isinstance(each, gevent.Greenlet) for each in objects),
        "objects": len(objects),
    }
