"""Packet captures as other programs write them: made with dpkt and struct, not with our code."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable

import dpkt

Packets = Iterable[tuple[float, bytes]]


def udp4(payload: bytes, *, port: int = 1700, mf: int = 0) -> dpkt.ip.IP:
    udp = dpkt.udp.UDP(sport=40_000, dport=port, data=payload)
    udp.ulen = len(udp)
    ip = dpkt.ip.IP(src=bytes([127, 0, 0, 1]), dst=bytes([127, 0, 0, 1]), p=dpkt.ip.IP_PROTO_UDP, data=udp, mf=mf)
    ip.len = len(ip)
    return ip


def udp6(payload: bytes, *, port: int = 1700) -> dpkt.ip6.IP6:
    udp = dpkt.udp.UDP(sport=40_000, dport=port, data=payload)
    udp.ulen = len(udp)
    loopback = bytes(15) + b"\1"
    return dpkt.ip6.IP6(src=loopback, dst=loopback, nxt=dpkt.ip.IP_PROTO_UDP, hlim=64, plen=len(udp), data=udp)


def fragment6(payload: bytes) -> bytes:
    whole = bytes(udp6(payload))
    head, rest = bytearray(whole[:40]), whole[40:]
    head[6] = dpkt.ip.IP_PROTO_FRAGMENT
    head[4:6] = (len(rest) + 8).to_bytes(2, "big")
    return bytes(head) + struct.pack(">BBHI", dpkt.ip.IP_PROTO_UDP, 0, 1, 7) + rest


def ethernet(layer: dpkt.Packet) -> bytes:
    kind = dpkt.ethernet.ETH_TYPE_IP6 if isinstance(layer, dpkt.ip6.IP6) else dpkt.ethernet.ETH_TYPE_IP
    return bytes(dpkt.ethernet.Ethernet(type=kind, data=layer))


def cooked(layer: dpkt.Packet) -> bytes:
    return bytes(dpkt.sll.SLL(ethtype=dpkt.ethernet.ETH_TYPE_IP, data=layer))


def cooked2(layer: dpkt.Packet) -> bytes:
    return bytes(dpkt.sll2.SLL2(ethtype=dpkt.ethernet.ETH_TYPE_IP, data=layer))


def loopback(layer: dpkt.Packet) -> bytes:
    return struct.pack("<I", 2) + bytes(layer)


def pcap(packets: Packets, *, link_type: int, nano: bool = False) -> bytes:
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, linktype=link_type, nano=nano)
    for at, packet in packets:
        writer.writepkt(packet, ts=at)
    return file.getvalue()


def pcapng(packets: Packets, *, link_type: int) -> bytes:
    file = io.BytesIO()
    idb = dpkt.pcapng.InterfaceDescriptionBlockLE(linktype=link_type, snaplen=0xFFFF)
    writer = dpkt.pcapng.Writer(file, idb=idb)
    for at, packet in packets:
        writer.writepkt(packet, ts=at)
    return file.getvalue()


def loratap0(
    payload: bytes,
    *,
    frequency: int = 868_100_000,
    bandwidth: int = 1,
    sf: int = 7,
    rssi: int = 100,
    snr: int = 20,
    sync_word: int = 0x34,
    version: int = 0,
    extra: bytes = b"",
) -> bytes:
    """Packed by the field list of the format's description."""
    length = 15 + len(extra)
    head = struct.pack(">BBHIBBBBBbB", version, 0, length, frequency, bandwidth, sf, rssi, 255, 255, snr, sync_word)
    return head + extra + payload


def loratap1(
    payload: bytes, *, eui: int, tmst: int, flags: int, cr: int = 5, datarate: int = 0, **fields: int
) -> bytes:
    extra = struct.pack(">QIBBHBBH", eui, tmst, flags, cr, datarate, 3, 1, 0)
    return loratap0(payload, version=1, extra=extra, **fields)
