"""What travels on the wire: the frame codec, events, and the errors everybody shares. Never torch, never a broker."""

from hydrophone.schemas.errors import HydrophoneError
from hydrophone.schemas.frame import Frame, Heartbeat, concat, decode

__all__ = ["Frame", "Heartbeat", "HydrophoneError", "concat", "decode"]
