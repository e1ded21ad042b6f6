"""Testing what speaks MQTT, with pytest or without.

`Capture` and `SyncCapture` say what came through a broker, `Cassette` keeps messages in a file and plays them as if the
devices were there, `ForeignBroker` is somebody else's broker as far as a test can use it. With pytest all of it comes
as fixtures: see `ferromq.pytest_plugin`.
"""

from ._capture import Capture, SyncCapture
from ._cassette import Cassette, CassetteMessage, Recorder
from ._foreign import ForeignBroker, Unsupported
from ._kit import Clients, Topics

__all__ = [
    "Capture",
    "Cassette",
    "CassetteMessage",
    "Clients",
    "ForeignBroker",
    "Recorder",
    "SyncCapture",
    "Topics",
    "Unsupported",
]
