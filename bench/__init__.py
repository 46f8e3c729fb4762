"""Measurements: `python -m bench` prints them as tables, with the machine they were taken on."""
