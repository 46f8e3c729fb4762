"""Readers of the stream that share no code with the server.

Other people's clients, and models of known ones whose habits decide what the wire may look like.
"""
