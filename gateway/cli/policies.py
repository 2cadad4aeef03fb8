"""The commands of `gateway policy`, from the rooms that hold them."""

from gateway.cli import judging, matrix

COMMANDS = judging.COMMANDS
__all__ = ["COMMANDS", "judging", "matrix"]
