"""The commands of `gateway case`, from the rooms that hold them."""

from gateway.cli import cases, referrals

COMMANDS = cases.COMMANDS
__all__ = ["COMMANDS", "cases", "referrals"]
