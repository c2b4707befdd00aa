"""How sensors and gateway get their connection: given by the world in one process, else made from an endpoint."""

from __future__ import annotations

import os

from cosim.case import Case
from cosim.io.mqtt import MqttEndpoint, connect_mqtt, endpoint_from
from cosim.io.transport import MemoryBus, Transport
from cosim.scenario.schema import MqttBroker, MqttTransport


def connect(case: Case, name: str, run: str, bus: MemoryBus | None = None, port: int | None = None) -> Transport:
    """The transport of simulator ``name`` in run ``run``: the bus if there is one, the embedded broker at ``port``, or
    the broker of the scenario. Raises BrokerError if it cannot be reached."""
    if bus is not None:
        return bus.connect()
    client_id = f"cosim-{run}-{name}"
    transport = case.scenario.transport
    if isinstance(transport, MqttTransport):
        return connect_mqtt(endpoint_from(_located(case, transport.mqtt), os.environ), client_id)
    return connect_mqtt(MqttEndpoint(host="127.0.0.1", port=int(port or 0), keeps_sessions=False), client_id)


def _located(case: Case, broker: MqttBroker) -> MqttBroker:
    """The broker with its certificate authority where it can be opened from here."""
    if broker.ca_file is None:
        return broker
    return broker.model_copy(update={"ca_file": case.loaded.resolve("transport.mqtt.ca_file", broker.ca_file)})
