"""The commands of `gateway case`, from the rooms that hold them."""

from gateway.cli import casepapers, cases, referrals

COMMANDS = cases.COMMANDS
__all__ = ["COMMANDS", "casepapers", "cases", "referrals"]
