"""The real database servers and toolchains the tests run against.

``python -m tests.servers start`` brings up PostgreSQL and MariaDB on loopback ports with their data
under ``var/``, and writes ``var/servers.env`` with the addresses. Standard library only: it works
before anything is installed.

Rules: nothing outside ``var/`` is changed but for Debian packages that are missing; a cluster or
service that was already on the machine is never started, stopped or written to; the data is for
throwing away, so whatever looks broken is made anew instead of mended.
"""
