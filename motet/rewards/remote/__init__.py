"""Rewards over HTTP: the protocol that reward services and their clients share."""
