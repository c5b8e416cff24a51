"""What a fresh uplink says to the MAC layer, and what the device is owed for it."""

from __future__ import annotations

import msgspec

from lorabridge.lorawan.air import Reception
from lorabridge.lorawan.decision import OwedData
from lorabridge.lorawan.events import MacReport, Uplink
from lorabridge.lorawan.mac_commands import Command, Parsed, parse
from lorabridge.lorawan.mac_layer import hear, note_uplink
from lorabridge.lorawan.mac_policy import MacPolicy
from lorabridge.lorawan.regions import Region
from lorabridge.lorawan.session import Session, VerifiedFrame
from lorabridge.lorawan.table import Entry, initial_settings
from lorabridge.lorawan.types import Direction, FCnt32

_MAC_PORT = 0
_UP = Direction.UP


class HeardUplink(msgspec.Struct, frozen=True, gc=False):
    """The session with its MAC layer after an uplink, what the device is owed, and what is to be told of it."""

    session: Session
    owed: OwedData
    reports: tuple[MacReport, ...]


def hear_uplink(
    uplink: Uplink, entry: Entry, region: Region, session: Session, last_fcnt32: FCnt32 | None, policy: MacPolicy
) -> HeardUplink:
    """Take over what the device answered, and note what it asks; `last_fcnt32`: the counter accepted before."""
    reception = uplink.reception
    mac = note_uplink(
        session.mac,
        fcnt32=uplink.fcnt32,
        last_fcnt32=last_fcnt32,
        data_rate=region.tx_dr(reception.data_rate),
        adr=uplink.adr,
        snr_db=best_snr_db(reception),
        policy=policy,
    )
    said = uplink.payload if uplink.f_port == _MAC_PORT else uplink.f_opts
    commands: tuple[Command, ...] = ()
    repeats = False
    reports: tuple[MacReport, ...] = ()
    if said or mac.asked:
        version = entry.device.mac_version
        parsed = parse(said, _UP, version)
        initial = initial_settings(entry)
        heard = hear(mac, parsed, mac_version=version, region=region, policy=policy, initial=initial)
        mac, commands, repeats = heard.state, heard.owed, heard.repeats
        if heard.report or parsed.unknown_cid is not None or parsed.truncated:
            reports = (_report(uplink, parsed),)
    if mac is not session.mac:
        session = msgspec.structs.replace(session, mac=mac)
    owed = OwedData(
        entry=entry,
        region=region,
        uplink=reception,
        fcnt32=uplink.fcnt32,
        confirmed=uplink.confirmed,
        adr=uplink.adr,
        adr_ack_req=uplink.adr_ack_req,
        commands=commands,
        repeats=repeats,
    )
    return HeardUplink(session, owed, reports)


def owed_again(verified: VerifiedFrame, entry: Entry, region: Region, reception: Reception) -> OwedData:
    """A confirmed uplink that the device repeats did not see its acknowledgement: it is owed another."""
    return OwedData(
        entry=entry,
        region=region,
        uplink=reception,
        fcnt32=verified.fcnt32,
        confirmed=True,
        adr=verified.frame.flags.adr,
        adr_ack_req=False,
    )


def _report(uplink: Uplink, parsed: Parsed) -> MacReport:
    return MacReport(
        device=uplink.device,
        at=uplink.reception.received_at,
        fcnt32=uplink.fcnt32,
        commands=tuple((command.name, command.fields) for command in parsed.commands),
        unknown_cid=parsed.unknown_cid,
        truncated=parsed.truncated,
    )


def best_snr_db(reception: Reception) -> float | None:
    """The best SNR of any antenna, None where the gateway does not say."""
    found = [antenna.snr_db for antenna in reception.antennas if antenna.snr_db is not None]
    return max(found) if found else None
