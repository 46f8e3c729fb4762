"""The WSGI application for gunicorn and the flask command: `wsgi:app`."""

import sys

from events_app import errors
from events_app.app import create_app

try:
    app = create_app()
except errors.SettingsError as error:
    sys.exit(f"events-app does not start.\n{error}")
