"""`[[device]]` and `[[multicast_group]]` as an operator writes them, and which keys belong to which kind of device."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lorabridge.lorawan.device import Activation, CounterPolicy
from lorabridge.lorawan.types import EUI64, DevAddr, DeviceClass, MacVersion


class KeyReference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that stands elsewhere: `{ file = "…" }` or `{ credential = "…" }`."""

    file: str | None = None
    """32 hex digits in a file of its own; a relative path begins at the device file's folder."""
    credential: str | None = None
    """The name of a systemd credential (LoadCredential=, LoadCredentialEncrypted=)."""


Key = str | KeyReference

_HOW = '32 hex digits in quotes, { file = "…" } or { credential = "…" }'


def _key(says: str) -> msgspec.Meta:
    return msgspec.Meta(description=f"{says}: {_HOW}.")


class DeviceSettings(msgspec.Struct, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """`[[device]]`: one end-device."""

    name: Annotated[
        str,
        msgspec.Meta(
            description="What you call it: 1 to 64 characters, no two devices alike.",
            pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,64}$(?!\n)",  # `$` alone takes a line break behind it
            examples=["meter-1"],
        ),
    ]
    dev_eui: Annotated[
        EUI64,
        msgspec.Meta(description="DevEUI: 16 hex digits, as on its label.", examples=["0004a30b001c0530"]),
    ]
    mac_version: Annotated[
        MacVersion,
        msgspec.Meta(description='LoRaWAN version: "1.0.0" to "1.0.4" or "1.1.0".', examples=["1.0.3"]),
    ]
    activation: Annotated[
        Activation,
        msgspec.Meta(
            description='"abp": address and session keys are written here. "otaa": the device joins, with the root '
            "keys that are written here."
        ),
    ] = Activation.ABP
    dev_addr: Annotated[
        DevAddr | None, msgspec.Meta(description="DevAddr: 8 hex digits (ABP).", examples=["26011bda"])
    ] = None
    nwk_s_key: Annotated[Key | None, _key("NwkSKey (ABP, 1.0)")] = None
    app_s_key: Annotated[
        Key | None, _key("AppSKey (ABP); left out, payloads stay encrypted and are forwarded as they come")
    ] = None
    f_nwk_s_int_key: Annotated[Key | None, _key("FNwkSIntKey (ABP, 1.1)")] = None
    s_nwk_s_int_key: Annotated[Key | None, _key("SNwkSIntKey (ABP, 1.1)")] = None
    nwk_s_enc_key: Annotated[Key | None, _key("NwkSEncKey (ABP, 1.1)")] = None
    join_eui: Annotated[EUI64 | None, msgspec.Meta(description="JoinEUI or AppEUI: 16 hex digits (OTAA).")] = None
    app_key: Annotated[
        Key | None, _key("AppKey (OTAA); under 1.1 it may be left out: payloads then stay encrypted")
    ] = None
    nwk_key: Annotated[Key | None, _key("NwkKey (OTAA, 1.1)")] = None
    device_class: Annotated[
        DeviceClass,
        msgspec.Meta(description='"A": it listens after its own uplinks only. "C": it always listens.'),
    ] = DeviceClass.A
    adr: Annotated[
        bool,
        msgspec.Meta(description="Whether its data rate and power are managed while it asks for that in its frames."),
    ] = True
    counter_policy: Annotated[
        CounterPolicy,
        msgspec.Meta(
            description='When the device restarts its frame counter: "strict" refuses its frames until you act, '
            '"confirm" takes them after confirm_frames consecutive new ones, "off" takes them at once, and with them '
            "every frame that somebody recorded earlier."
        ),
    ] = CounterPolicy.STRICT
    confirm_frames: Annotated[
        int, msgspec.Meta(description='Frames for counter_policy "confirm": 2 to 100.', ge=2, le=100)
    ] = 3
    max_fcnt_gap: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)] | None,
        msgspec.Meta(
            description="Most frames that may be missing between two: 0 for no limit; left out, what the version says."
        ),
    ] = None
    region: Annotated[
        str | None,
        msgspec.Meta(description="Channel plan of the device, when it is not the bridge's own.", examples=["EU868"]),
    ] = None
    channels: Annotated[
        tuple[
            Annotated[float, msgspec.Meta(description="A frequency in MHz, such as 867.1.", ge=100, le=3000)],
            ...,
        ],
        msgspec.Meta(
            description="Uplink channels in MHz beyond the default ones of the region, in their order (for 1.1).",
            examples=[[867.1, 867.3]],
        ),
    ] = ()
    tags: Annotated[
        dict[
            Annotated[str, msgspec.Meta(max_length=64)],
            Annotated[str, msgspec.Meta(max_length=256)],
        ],
        msgspec.Meta(
            description="What you like, sent along with every event of the device: up to 32 texts. "
            '`wireless_device_id` has a meaning with `format = "aws-lorawan"`, see formats.md.',
            max_length=32,
            examples=[{"site": "north"}],
        ),
    ] = {}


class MulticastGroupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[[multicast_group]]`: an address and keys that several class C devices share."""

    name: Annotated[
        str,
        msgspec.Meta(
            description="What downlink commands call it: letters, digits, - _ and ., 1 to 64 of them and not 16 hex "
            "digits; no two devices or groups alike.",
            pattern=r"^(?![0-9A-Fa-f]{16}$)[A-Za-z0-9._-]{1,64}$(?!\n)",
            examples=["street-lamps"],
        ),
    ]
    mc_addr: Annotated[
        DevAddr,
        msgspec.Meta(description="McAddr: 8 hex digits, of no device and no other group.", examples=["26011fff"]),
    ]
    mc_key: Annotated[Key | None, _key("McKey, from which the two session keys follow (TS005); or these")] = None
    mc_nwk_s_key: Annotated[Key | None, _key("McNwkSKey")] = None
    mc_app_s_key: Annotated[
        Key | None, _key("McAppSKey; left out, only payloads that are encrypted already can be sent")
    ] = None
    frequency: Annotated[
        Annotated[float, msgspec.Meta(ge=100, le=3000)] | None,
        msgspec.Meta(
            description="Where the group listens, in MHz; left out, RX2 of the region.",
            examples=[869.525],
        ),
    ] = None
    data_rate: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=15)] | None,
        msgspec.Meta(description="And at which data rate, by its number in the region; left out, that of RX2."),
    ] = None
    gateways: Annotated[
        tuple[EUI64, ...],
        msgspec.Meta(description="Gateways that send to the group, 16 hex digits each; left out, all that are heard."),
    ] = ()
    region: Annotated[
        str | None,
        msgspec.Meta(description="Channel plan of the group, when it is not the bridge's own.", examples=["EU868"]),
    ] = None


class KeyRule(msgspec.Struct, frozen=True):
    """Which fields a kind of device must have and may have."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


KEY_RULES = {
    (Activation.ABP, False): KeyRule(("dev_addr", "nwk_s_key"), ("app_s_key",)),
    (Activation.ABP, True): KeyRule(
        ("dev_addr", "f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key"), ("app_s_key",)
    ),
    (Activation.OTAA, False): KeyRule(("join_eui", "app_key")),
    (Activation.OTAA, True): KeyRule(("join_eui", "nwk_key"), ("app_key",)),
}
"""By activation and whether the version is 1.1."""

KEY_FIELDS = ("nwk_s_key", "f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key", "app_s_key", "app_key", "nwk_key")
GROUP_KEY_FIELDS = ("mc_key", "mc_nwk_s_key", "mc_app_s_key")
ADDRESS_FIELDS = ("dev_addr", "join_eui")
