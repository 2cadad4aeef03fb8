"""Every error that the gateway raises on purpose, sorted by who can act on it.

    GatewayError
    ├── theirs: what was sent to us is wrong
    │   ├── MalformedError            bytes that no contract describes
    │   │   └── TooLargeError         more bytes than the contract allows
    │   ├── VerificationError         a signature, seal or digest does not verify
    │   │   └── ProofError            a log proof does not verify
    │   └── UnauthenticatedError      the caller did not prove who it is
    ├── the rules': DeniedError       policy or four eyes say no
    ├── the moment's: try again, perhaps after a look
    │   ├── NotFoundError             absent, or not for this caller to see
    │   ├── ConflictError             the state has moved, or the id is taken by other content
    │   │   └── StaleCursorError      a page does not start where its receiver stands
    │   ├── OverloadedError           too much at once; carries `retry_after_seconds`
    │   │   └── RateLimitedError      this caller asks more often than was agreed
    │   └── PartnerError              the partner did not answer, or answered with a failure
    └── ours: ConfigError, AuditBrokenError

`str(error)` is fit to send and to log: no digest, no case reference, no file path. `place` names where in the input
the fault is ("line 12, field MD5"), and is fit to send too. `problems.py` alone turns these into HTTP answers and
exit codes.
"""

from __future__ import annotations


class GatewayError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: one sentence, fit to send.
        place: where in the input the fault is, or "".
        remedy: what to do next, or "".
    """

    def __init__(self, message: str, *, place: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.place})" if self.place else self.message


class MalformedError(GatewayError):
    """The bytes do not follow the contract."""


class TooLargeError(MalformedError):
    """The input is larger than its contract allows."""


class VerificationError(GatewayError):
    """A signature, a seal or a digest does not verify."""


class ProofError(VerificationError):
    """An inclusion or consistency proof does not verify."""


class UnauthenticatedError(GatewayError):
    """The caller did not prove who it is."""


class DeniedError(GatewayError):
    """Policy, ownership or four eyes forbid it; `rules` are the ids of the deciding rules."""

    def __init__(self, message: str, *, place: str = "", remedy: str = "", rules: tuple[str, ...] = ()) -> None:
        super().__init__(message, place=place, remedy=remedy)
        self.rules = rules


class NotFoundError(GatewayError):
    """It does not exist, or not for this caller: both look the same."""


class ConflictError(GatewayError):
    """The state has moved on, or the id is taken by other content."""


class StaleCursorError(ConflictError):
    """The page does not start at the receiver's cursor; `cursor` is where the receiver stands."""

    def __init__(self, message: str, *, cursor: dict[str, object] | None = None) -> None:
        super().__init__(message, remedy="start again from the cursor given")
        self.cursor = cursor


class OverloadedError(GatewayError):
    """Too much at once: try again after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: int = 30) -> None:
        super().__init__(message, remedy=f"try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class RateLimitedError(OverloadedError):
    """This caller asks more often than was agreed; others are still served."""


class PartnerError(GatewayError):
    """The partner did not answer, or answered with a failure."""


class ConfigError(GatewayError):
    """Settings, keys or policy files cannot be used as they are."""


class AuditBrokenError(GatewayError):
    """The audit log does not prove what it claims; `index` is the first bad leaf, None where only a range is known."""

    def __init__(self, message: str, *, index: int | None = None, place: str = "") -> None:
        super().__init__(message, place=place or ("" if index is None else f"leaf {index}"))
        self.index = index
