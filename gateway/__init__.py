"""Partner-exchange gateway: hashes and case metadata between national teams, never imagery."""

__version__ = "0.1.0"
