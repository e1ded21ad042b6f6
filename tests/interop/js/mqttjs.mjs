// MQTT.js behind the JSON lines that harness/peer.py describes.

import { createInterface } from "node:readline";
import mqtt from "mqtt";

const emit = (line) => process.stdout.write(JSON.stringify(line) + "\n");

let client = null;

const operations = {
  connect({ host, port, transport, path, version, client_id, clean, expiry, will }) {
    const url = transport === "ws" ? `ws://${host}:${port}${path}` : `mqtt://${host}:${port}`;
    const options = {
      clientId: client_id,
      protocolVersion: version,
      clean,
      reconnectPeriod: 0,
      connectTimeout: 30_000,
      // Unsubscribed messages of a resumed session arrive before any handler of the application would.
      resubscribe: false,
    };
    if (version === 5) options.properties = { sessionExpiryInterval: expiry, topicAliasMaximum: 16 };
    if (will) options.will = { ...will, payload: Buffer.from(will.payload, "base64") };
    return new Promise((resolve, reject) => {
      const opened = mqtt.connect(url, options);
      client = opened;
      opened.on("message", received);
      opened.once("connect", (connack) => {
        opened.on("close", () => emit({ event: "closed" }));
        resolve({ session_present: connack.sessionPresent });
      });
      opened.on("error", reject);
    });
  },

  async subscribe({ filters, qos, options }) {
    const chosen = {
      qos,
      nl: options.no_local ?? false,
      rap: options.retain_as_published ?? false,
      rh: options.retain_handling ?? 0,
    };
    const properties = options.subscription_id ? { subscriptionIdentifier: options.subscription_id } : undefined;
    const wanted = Object.fromEntries(filters.map((filter) => [filter, { ...chosen }]));
    const granted = await client.subscribeAsync(wanted, properties ? { qos, properties } : { qos });
    return { granted: granted.map((grant) => grant.qos) };
  },

  async unsubscribe({ filter }) {
    await client.unsubscribeAsync(filter);
  },

  async publish({ topic, payload, qos, retain, properties }) {
    await client.publishAsync(topic, Buffer.from(payload, "base64"), { qos, retain, properties: theirs(properties) });
  },

  async disconnect() {
    await client.endAsync();
  },
};

function theirs(properties) {
  const found = {};
  if (properties.user) {
    found.userProperties = {};
    for (const [key, value] of properties.user) {
      (found.userProperties[key] ??= []).push(value);
    }
  }
  if (properties.response_topic) found.responseTopic = properties.response_topic;
  if (properties.correlation) found.correlationData = Buffer.from(properties.correlation, "base64");
  if (properties.expiry) found.messageExpiryInterval = properties.expiry;
  if (properties.content_type) found.contentType = properties.content_type;
  if (properties.alias) found.topicAlias = properties.alias;
  return Object.keys(found).length > 0 ? found : undefined;
}

function ours(properties = {}) {
  const found = {};
  if (properties.userProperties) {
    found.user = Object.entries(properties.userProperties).flatMap(([key, values]) =>
      [values].flat().map((value) => [key, value]),
    );
  }
  if (properties.responseTopic) found.response_topic = properties.responseTopic;
  if (properties.correlationData) found.correlation = properties.correlationData.toString("base64");
  if (properties.messageExpiryInterval !== undefined) found.expiry = properties.messageExpiryInterval;
  if (properties.contentType) found.content_type = properties.contentType;
  if (properties.subscriptionIdentifier) found.subscription_ids = [properties.subscriptionIdentifier].flat();
  return found;
}

function received(topic, payload, packet) {
  const { qos, retain, properties } = packet;
  emit({ event: "message", topic, payload: payload.toString("base64"), qos, retain, properties: ours(properties) });
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...request } = JSON.parse(line);
  operations[op](request).then(
    (ok) => emit({ id, ok: ok ?? {} }),
    (error) => emit({ id, error: String(error?.message ?? error) }),
  );
}
process.exit(0);
