"""MQTT 5 properties between the lines' names and paho-mqtt's, which aiomqtt shares."""

from __future__ import annotations

from lines import encode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

NAMES = {
    "user": "UserProperty",
    "response_topic": "ResponseTopic",
    "correlation": "CorrelationData",
    "expiry": "MessageExpiryInterval",
    "content_type": "ContentType",
    "alias": "TopicAlias",
    "subscription_ids": "SubscriptionIdentifier",
}


def connect_properties(version: int, expiry: int) -> Properties | None:
    if version != 5:
        return None
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = expiry
    # No TopicAliasMaximum: paho-mqtt hands over aliased messages without their topic.
    return properties


def publish_properties(version: int, given: dict) -> Properties | None:
    if version != 5 or not given:
        return None
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in given.items():
        setattr(properties, NAMES[name], [tuple(pair) for pair in value] if name == "user" else value)
    return properties


def received_properties(properties: Properties | None) -> dict:
    found = {}
    for name, attribute in NAMES.items():
        value = getattr(properties, attribute, None)
        if value is not None:
            found[name] = encode(value) if name == "correlation" else value
    return found


def subscribe_arguments(version: int, qos: int, options: dict) -> tuple[SubscribeOptions | None, Properties | None]:
    """Options and properties of a SUBSCRIBE in MQTT 5."""
    if version != 5:
        return None, None
    chosen = SubscribeOptions(
        qos=qos,
        noLocal=options.get("no_local", False),
        retainAsPublished=options.get("retain_as_published", False),
        retainHandling=options.get("retain_handling", 0),
    )
    properties = Properties(PacketTypes.SUBSCRIBE)
    if "subscription_id" in options:
        properties.SubscriptionIdentifier = options["subscription_id"]
    return chosen, properties
