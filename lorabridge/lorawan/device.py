"""What the operator says of a device: identity, keys and policy. It changes only when the files do."""

from __future__ import annotations

import enum

import msgspec

from lorabridge.lorawan.events import DeviceRef
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DeviceClass, MacVersion


class Activation(enum.Enum):
    """How a device gets its session (TS001-1.0.4 §6)."""

    ABP = "abp"
    OTAA = "otaa"


class CounterPolicy(enum.Enum):
    """What happens when an ABP device restarts its frame counter."""

    STRICT = "strict"
    """Refused until the operator acts."""
    CONFIRM = "confirm"
    """Taken after `confirm_frames` consecutive new frames, none ever heard before, from the new low counter."""
    OFF = "off"
    """Taken at once: whoever recorded old frames can play them back. For a bench only."""


class SessionKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one session by the names of 1.1; under 1.0 the three network keys are all NwkSKey."""

    f_nwk_s_int_key: AES128Key
    s_nwk_s_int_key: AES128Key
    nwk_s_enc_key: AES128Key
    app_s_key: AES128Key | None = None
    """None: payloads stay sealed."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One end-device."""

    name: str
    dev_eui: EUI64
    mac_version: MacVersion
    activation: Activation
    dev_addr: DevAddr | None = None
    session_keys: SessionKeys | None = None
    """ABP only."""
    join_eui: EUI64 | None = None
    app_key: AES128Key | None = None
    """OTAA. Left out for 1.1 when it is kept elsewhere: payloads then stay sealed."""
    nwk_key: AES128Key | None = None
    counter_policy: CounterPolicy = CounterPolicy.STRICT
    confirm_frames: int = 3
    max_fcnt_gap: int | None = None
    """None: what the version says; 0: no limit."""
    region: str | None = None
    """Name of the region, for TxDr and TxCh of the 1.1 MIC; None: the bridge's own region."""
    channels_hz: tuple[int, ...] = ()
    """Uplink channels the device has beyond the region's default ones, in order, for TxCh of the 1.1 MIC."""
    device_class: DeviceClass = DeviceClass.A
    adr: bool = True
    """Whether data rate and power are managed for a device that asks for it."""
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def ref(self) -> DeviceRef:
        """How events name this device."""
        return DeviceRef(
            name=self.name,
            dev_eui=self.dev_eui,
            tags=self.tags,
            region=self.region,
            device_class=self.device_class,
        )


class MulticastGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group of class C devices that share an address and keys (TS005 §2)."""

    name: str
    mc_addr: DevAddr
    mc_nwk_s_key: AES128Key
    mc_app_s_key: AES128Key | None = None
    """None: only sealed payloads can be sent."""
    frequency_hz: int | None = None
    """None: RX2 of the region."""
    data_rate: int | None = None
    gateways: tuple[EUI64, ...] = ()
    """Which gateways send; none: all that are heard."""
    region: str | None = None
