"""gunicorn's settings for the rivals: ours, without the greenlets of ours."""

import runpy
from pathlib import Path
from typing import Any

from events_app import garbage

_ours = runpy.run_path(str(Path(__file__).parents[1] / "gunicorn.conf.py"))

worker_class = _ours["worker_class"]
worker_connections = _ours["worker_connections"]
keepalive = _ours["keepalive"]
max_requests = _ours["max_requests"]
timeout = _ours["timeout"]
control_socket_disable = _ours["control_socket_disable"]
logconfig_dict = _ours["logconfig_dict"]
graceful_timeout = 1
pre_fork = _ours["pre_fork"]


def post_worker_init(worker: Any) -> None:
    """Treat the garbage collector alike."""
    worker.collector = garbage.Collector()
    worker.collector.start()
