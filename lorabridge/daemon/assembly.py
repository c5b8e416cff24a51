"""What is made of the configuration: radio sources, the network that is ours, the form of the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lorabridge.daemon.answering import answering_of, policy_of
from lorabridge.daemon.config import Config, RadioSettings, parse_dev_addr_range
from lorabridge.lorawan.decision import Answering, Network
from lorabridge.lorawan.device import Activation, Device
from lorabridge.lorawan.events import Event, Record
from lorabridge.lorawan.regions import REGIONS
from lorabridge.radio.base import RadioSource
from lorabridge.radio.basics_station.settings import BasicsStationSettings
from lorabridge.radio.concentratord.settings import ConcentratordSettings
from lorabridge.radio.recording import Recording, RecordingSettings
from lorabridge.radio.semtech_udp import SemtechUdp
from lorabridge.radio.sx1302.settings import Sx1302Settings
from lorabridge.upstream.formats import encoder

RADIO_BACKOFF = (1.0, 60.0)


def encoder_of(config: Config) -> Callable[[Event], Record]:
    """What makes a record of an event, in the form that is configured."""
    link = config.link
    return encoder(link.format, link.chirpstack, config.gateway.id, config.network.region)


def source_of(settings: RadioSettings) -> RadioSource:
    """The radio source that the settings describe.

    The larger ones are imported for a bridge that has one: together they take as long to load as a sixth of the rest.
    """
    if isinstance(settings, RecordingSettings):
        return Recording(settings)
    if isinstance(settings, Sx1302Settings):
        from lorabridge.radio.sx1302.source import Sx1302  # noqa: PLC0415

        return Sx1302(settings)
    if isinstance(settings, BasicsStationSettings):
        from lorabridge.radio.basics_station.source import BasicsStation  # noqa: PLC0415

        return BasicsStation(settings)
    if isinstance(settings, ConcentratordSettings):
        from lorabridge.radio.concentratord.source import Concentratord  # noqa: PLC0415

        return Concentratord(settings)
    return SemtechUdp(settings)


def network_of(config: Config, devices: Sequence[Device], mute_sources: frozenset[str] = frozenset()) -> Network:
    """What is ours on the air: as configured, else the networks that the devices' addresses belong to.

    `mute_sources`: radio sources that cannot send.
    """
    network = config.network
    prefixes = [parse_dev_addr_range(text) for text in network.dev_addr_ranges]
    if not network.net_ids and not prefixes:
        prefixes = sorted({device.dev_addr.network_prefix for device in devices if device.dev_addr is not None})
        if config.downlinks.enabled and any(device.activation is Activation.OTAA for device in devices):
            prefixes.append(_answering(config, frozenset()).address_range)
    return Network(
        answering=_answering(config, mute_sources) if config.downlinks.enabled else None,
        net_ids=network.net_ids,
        dev_addr_prefixes=tuple(prefixes),
        duplicate_window_ns=int(network.duplicate_window * 1e9),
    )


def _answering(config: Config, mute_sources: frozenset[str]) -> Answering:
    """How devices are answered, as configured."""
    text = config.join.dev_addr_range
    return answering_of(
        config.join,
        policy_of(config.mac, REGIONS.get(config.network.region or "")),
        net_ids=config.network.net_ids,
        dev_addr_range=None if text is None else parse_dev_addr_range(text),
        mute_sources=mute_sources,
    )
