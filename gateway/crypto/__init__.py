"""Bytes only: canonical JSON, keys, signatures, sealing, logs and tokens. Knows no cases and no hash entries.

The one door to the cryptography library, and the only place of randomness. No clock, no file, no network.
"""
