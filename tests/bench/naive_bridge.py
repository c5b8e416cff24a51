"""The reference end to end: a bridge as one writes it first. Not part of the product, and not meant to be.

One blocking UDP loop, the naive decoder, one SQLite transaction a frame, paho's threaded client with the
window it comes with. It keeps the same promise (nothing is published before it is on the disk).
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sqlite3
import ssl
import sys
import tomllib
from collections import deque
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.bench.fleet import FIRST_FCNT
from tests.bench.naive import NaiveDecoder, NaiveSession


def connect(port: int, ca_file: str, certificate: str, key: str) -> Client:
    """The MQTT client, connected, its loop on a thread of its own."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="naive")
    context = ssl.create_default_context(cafile=ca_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.load_cert_chain(certificate, key)
    client.tls_set_context(context)
    client.max_queued_messages_set(0)
    client.reconnect_delay_set(1, 2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


def sessions(devices: Path) -> dict[int, NaiveSession]:
    """The sessions of a device file."""
    return {
        int(device["dev_addr"], 16): NaiveSession(
            device["name"],
            int(device["dev_eui"], 16),
            bytes.fromhex(device["nwk_s_key"]),
            bytes.fromhex(device["app_s_key"]),
            FIRST_FCNT - 1,
        )
        for device in tomllib.loads(devices.read_text(encoding="utf-8"))["device"]
    }


def open_store(path: str) -> sqlite3.Connection:
    """The outbox, written through at every commit."""
    store = sqlite3.connect(path, isolation_level=None)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = FULL")
    store.execute("CREATE TABLE outbox (id INTEGER PRIMARY KEY, payload TEXT)")
    return store


def serve(sock: socket.socket, decoder: NaiveDecoder, store: sqlite3.Connection, client: Client) -> None:
    """Receive, acknowledge, decode, store, publish; rows go once they are published."""
    rows: dict[int, int] = {}
    published: deque[int] = deque()
    client.on_publish = lambda _client, _userdata, mid, *_: published.append(mid)
    while True:
        datagram, sender = sock.recvfrom(65536)
        if datagram[3] != 0:
            continue
        sock.sendto(datagram[:3] + b"\x01", sender)
        for rxpk in json.loads(datagram[12:]).get("rxpk", []):
            document = decoder.decode(base64.b64decode(rxpk["data"]))
            if document is None:
                continue
            row = store.execute("INSERT INTO outbox (payload) VALUES (?)", (document,)).lastrowid or 0
            rows[client.publish("naive/uplink", document, qos=1).mid] = row
        while published:
            store.execute("DELETE FROM outbox WHERE id = ?", (rows.pop(published.popleft()),))


def main() -> None:
    """Serve until SIGTERM."""
    udp_port, mqtt_port = int(sys.argv[1]), int(sys.argv[2])
    database, ca_file, certificate, key, devices = sys.argv[3:8]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    client = connect(mqtt_port, ca_file, certificate, key)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("127.0.0.1", udp_port))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0"))
        serve(sock, NaiveDecoder(sessions(Path(devices))), open_store(database), client)


if __name__ == "__main__":
    main()
