"""The WSGI application for gunicorn and the flask command: `wsgi:app`."""

import sys

from gunicorn.arbiter import Arbiter

from events_app import errors
from events_app.app import create_app

try:
    app = create_app()
except errors.SettingsError as error:
    sys.stderr.write(f"events-app does not start.\n{error}\n")
    # With any other code gunicorn would start the worker again, for ever.
    sys.exit(Arbiter.APP_LOAD_ERROR)
