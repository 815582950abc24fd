"""The error tree: every failure Hydrophone raises on purpose, sorted by what the reader should do about it.

    HydrophoneError
    ├── ConfigurationError        refuse to start; the command line exits 3
    │   ├── SettingsError         a setting breaks a rule
    │   ├── ReferenceInvalid      a reference cannot be fitted, loaded or verified
    │   └── TopicMissing          a topic or partition that should exist does not
    ├── RecordRejected            dead-letter the record and go on
    │   ├── FrameInvalid          the bytes are not an activation frame
    │   └── SignatureInvalid      nobody who holds a key vouches for the record
    ├── Retryable                 try again, nothing is lost
    │   └── BrokerUnavailable     the command line exits 4 when it gives up
    └── ProcessorStopped          stop this process, another one takes over
        └── Fenced                somebody else owns the transactional id

Numerical code has no branch of its own: too little data is an answer (`not_tested`), not an exception.
"""
# ruff: noqa: N818 -- a name here says what is wrong; `Error` at its end would say nothing more.

from typing import Final

__all__ = [
    "BrokerUnavailable",
    "ConfigurationError",
    "Fenced",
    "FrameInvalid",
    "HydrophoneError",
    "ProcessorStopped",
    "RecordRejected",
    "ReferenceInvalid",
    "Retryable",
    "SettingsError",
    "SignatureInvalid",
    "TopicMissing",
]

DETAIL_LIMIT: Final = 500
"""Characters of detail kept: a hostile record must not choose how much we log."""


class HydrophoneError(Exception):
    """Base of everything raised on purpose."""


class ConfigurationError(HydrophoneError):
    """Something a person set up breaks a rule; starting anyway would give wrong answers."""


class SettingsError(ConfigurationError):
    """One or more settings break a rule; the message names all of them."""


class ReferenceInvalid(ConfigurationError):
    """A reference cannot be fitted, loaded or verified."""


class TopicMissing(ConfigurationError):
    """A topic that should exist does not, or lacks partitions."""


class RecordRejected(HydrophoneError):
    """One record cannot be used. `reason` is a stable code; `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail[:DETAIL_LIMIT]
        super().__init__(f"{reason}: {self.detail}")


class FrameInvalid(RecordRejected):
    """The bytes are not an activation frame, or break one of its rules."""


class SignatureInvalid(RecordRejected):
    """A frame's signature is absent, of an unknown key, or wrong."""


class Retryable(HydrophoneError):
    """The same call may succeed later; nothing was lost."""


class BrokerUnavailable(Retryable):
    """No broker answered in time."""


class ProcessorStopped(HydrophoneError):
    """This process must stop; its partitions go to another one."""


class Fenced(ProcessorStopped):
    """Another process holds this transactional id."""
