"""The commands of `gateway policy`, from the rooms that hold them."""

from gateway.cli import explaining, judging, matrix

COMMANDS = judging.COMMANDS
__all__ = ["COMMANDS", "explaining", "judging", "matrix"]
