"""A Sentry transport that keeps what would leave this process."""

from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport


class CapturedTransport(Transport):
    """Every envelope as the bytes the network would see, uncompressed; and its events as the SDK parsed them."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.events: list[dict] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.append(envelope.serialize())
        event = envelope.get_event()
        if event is not None:
            self.events.append(dict(event))
