"""The WSGI application for gunicorn and the flask command: `wsgi:app`."""

from events_app.app import create_app

app = create_app()
