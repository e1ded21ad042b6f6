"""Every client hears every other, whatever the version and transport of either."""

import pytest
from conftest import Maker, require
from harness import brokers, cells


@pytest.mark.parametrize("broker_name", sorted({broker for broker, _ in cells.matrix()}))
def test_everybody_hears_everybody(running, pool, topic, broker_name, tmp_path_factory):
    require(brokers.missing(broker_name))
    if broker_name not in running:
        running[broker_name] = brokers.Broker.start(broker_name, tmp_path_factory.mktemp(broker_name))
    present = [cell for cell in cells.cells() if cell.spec.missing() is None]
    assert present, "no client is installed"
    maker = Maker(pool, present[0], running[broker_name])
    try:
        clients = {str(cell): maker.connected(cell=cell) for cell in present}
        for client in clients.values():
            client.subscribe(f"{topic}/#", qos=2)
        expected = set()
        for number, (name, client) in enumerate(clients.items()):
            client.publish(f"{topic}/{number}", name.encode(), qos=number % 3)
            expected.add((f"{topic}/{number}", name.encode(), number % 3))
        for name, client in clients.items():
            received = {(message.topic, message.payload, message.qos) for message in client.receive_many(len(clients))}
            assert received == expected, name
    finally:
        pool.give_back()
