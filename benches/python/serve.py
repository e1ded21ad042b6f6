"""Our broker in a process of its own: prints its URL, and answers each line with its counters."""

import json
import sys

import ferromq


def main() -> None:
    """Serve until standard input ends."""
    # Peers are measured to their end: nothing may be dropped because one of them is slow.
    queue = {"messages_max": 10_000_000, "bytes_max": "4 GiB"}
    with ferromq.Broker(queue=queue, slow_consumer={"outbox_soft": "1 GiB"}) as broker:
        print(broker.url, flush=True)
        for _ in sys.stdin:
            print(json.dumps(broker.stats()), flush=True)


if __name__ == "__main__":
    main()
