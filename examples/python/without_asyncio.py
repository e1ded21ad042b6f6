"""The same without asyncio: in a script, a thread or a notebook."""

import ferromq

with (
    ferromq.Broker() as broker,
    ferromq.SyncClient(broker.url) as client,
    client.subscribe("plant/#", qos=1) as readings,
):
    client.publish("plant/7/temp", b"21.5", qos=1)
    print(readings.get(timeout=5).payload)
