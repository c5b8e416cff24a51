"""ChirpStack's gateway API by protobuf's own runtime: an encoder that knows nothing of ours.

Field numbers and types are those of api/proto/gw/gw.proto; only what the tests speak of is here.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELDS = """
Event: uplink_frame 1 UplinkFrame, gateway_stats 2 GatewayStats, mesh 3 MeshEvent
MeshEvent: gateway_id 1 string, relay_id 2 string
Command: send_downlink_frame 1 DownlinkFrame, set_gateway_configuration 2 Empty, get_gateway_id 3 Empty
Empty:
Time: seconds 1 int64, nanos 2 int32
Entry: key 1 string, value 2 string
Location: latitude 1 double, longitude 2 double, altitude 3 double, source 4 int32, accuracy 5 float
Lora: bandwidth 1 uint32, spreading_factor 2 uint32, code_rate_legacy 3 string, polarization_inversion 4 bool, \
code_rate 5 int32, preamble 6 uint32, no_crc 7 bool
Fsk: frequency_deviation 1 uint32, datarate 2 uint32
LrFhss: operating_channel_width 1 uint32, grid_steps 3 uint32
Modulation: lora 3 Lora, fsk 4 Fsk, lr_fhss 5 LrFhss
UplinkFrame: phy_payload 1 bytes, tx_info 4 UplinkTxInfo, rx_info 5 UplinkRxInfo
UplinkTxInfo: frequency 1 uint32, modulation 2 Modulation
UplinkRxInfo: gateway_id 1 string, uplink_id 2 uint32, gw_time 3 Time, time_since_gps_epoch 4 Time, \
fine_time_since_gps_epoch 5 Time, rssi 6 int32, snr 7 float, channel 8 uint32, rf_chain 9 uint32, board 10 uint32, \
antenna 11 uint32, location 12 Location, context 13 bytes, metadata 15 Entry*, crc_status 16 int32
GatewayStats: time 2 Time, location 3 Location, config_version 4 string, rx_packets_received 5 uint32, \
rx_packets_received_ok 6 uint32, tx_packets_received 7 uint32, tx_packets_emitted 8 uint32, metadata 10 Entry*, \
gateway_id 17 string
DownlinkFrame: downlink_id 3 uint32, items 5 DownlinkFrameItem*, gateway_id 7 string
DownlinkFrameItem: phy_payload 1 bytes, tx_info 3 DownlinkTxInfo
DownlinkTxInfo: frequency 1 uint32, power 2 int32, modulation 3 Modulation, board 4 uint32, antenna 5 uint32, \
timing 6 Timing, context 7 bytes
Timing: immediately 1 Empty, delay 2 Delay, gps_epoch 3 GpsEpoch
Delay: delay 1 Time
GpsEpoch: time_since_gps_epoch 1 Time
DownlinkTxAck: downlink_id 2 uint32, items 5 DownlinkTxAckItem*, gateway_id 6 string
DownlinkTxAckItem: status 1 int32
GetGatewayIdResponse: gateway_id 1 string
Scalars: u 1 uint32, i 2 int32, l 3 int64, b 4 bool, f 5 float, d 6 double, y 7 bytes, s 8 string, list 9 int32*, \
inside 10 Scalars
"""
_File = descriptor_pb2.FileDescriptorProto
_Field = descriptor_pb2.FieldDescriptorProto


def _pool() -> descriptor_pool.DescriptorPool:
    file = _File(name="gw.proto", package="gw", syntax="proto3")
    for line in _FIELDS.strip().splitlines():
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        for words in filter(None, fields.split(",")):
            field, number, kind = words.split()
            label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
            made = message.field.add(name=field, number=int(number), label=label)
            kind = kind.rstrip("*")
            scalar = f"TYPE_{kind.upper()}"
            if kind.islower():
                made.type = _Field.Type.Value(scalar)
                made.options.packed = False
            else:
                made.type, made.type_name = _Field.TYPE_MESSAGE, f".gw.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def message(name: str) -> Any:
    """An empty message of that name."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"gw.{name}"))()


def made(name: str, **fields: Any) -> Any:
    """A message with these fields: nested ones as dictionaries, lists of messages as lists of dictionaries."""
    filled = message(name)
    _fill(filled, fields)
    return filled


def read(name: str, data: bytes) -> Any:
    """A message out of its bytes; raises google.protobuf.message.DecodeError."""
    parsed = message(name)
    parsed.ParseFromString(data)
    return parsed


def _fill(target: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, dict):
            inner = getattr(target, name)
            inner.SetInParent()
            _fill(inner, value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                _fill(getattr(target, name).add(), item)
        elif isinstance(value, list):
            getattr(target, name).extend(value)
        else:
            setattr(target, name, value)


EUI_TEXT = "0016c001ff10a235"


def uplink(phy_payload: bytes, count_us: int = 36_637_365, **change: Any) -> dict[str, Any]:
    """The fields of an UplinkFrame; `change` is of `rx_info`."""
    rx_info = {
        "gateway_id": EUI_TEXT,
        "uplink_id": 7,
        "rssi": -57,
        "snr": 8.5,
        "context": count_us.to_bytes(4, "big"),
        "crc_status": 2,
    }
    lora = {"bandwidth": 125_000, "spreading_factor": 7, "code_rate": 1}
    return {
        "phy_payload": phy_payload,
        "tx_info": {"frequency": 868_100_000, "modulation": {"lora": lora}},
        "rx_info": rx_info | change,
    }


def stats(**change: Any) -> dict[str, Any]:
    """The fields of a GatewayStats."""
    return {"gateway_id": EUI_TEXT, "time": {"seconds": 1_700_000_000}, "rx_packets_received": 9} | change
