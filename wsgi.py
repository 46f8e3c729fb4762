"""The WSGI application for gunicorn and the flask command: `wsgi:app`."""

from events_app import errors
from events_app.app import create_app

try:
    app = create_app()
except errors.SettingsError as error:
    raise SystemExit(f"events-app does not start.\n{error}") from error
