"""The sender, in a process of its own: connects, waits for a line, publishes.

send.py URL block|json COUNT QOS
"""

import sys
from typing import Literal

import ferromq
from payloads import block, json_block
from table import BLOCK, TOPIC


def main() -> None:
    """Publish in thousands."""
    url, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    qos: Literal[0, 1] = 1 if sys.argv[4] == "1" else 0
    payloads = block()
    tables = [json_block(start) for start in range(0, count if kind == "json" else 0, BLOCK)]
    with ferromq.SyncClient(url) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        for start in range(0, count, BLOCK):
            part = min(BLOCK, count - start)
            if kind == "json":
                client.publish_many(tables[start // BLOCK][:part], qos=qos)
            else:
                client.publish_many(payloads[:part], topic=TOPIC, qos=qos)
        # The server has taken all that came before.
        client.publish("bench/end", b"", qos=1)
        print("sent", flush=True)


if __name__ == "__main__":
    main()
