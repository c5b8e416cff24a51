"""Who takes part in the recordings: devices with their keys, gateways with their places, and the device file.

Every key is derived from the device's name, so that the files can be made again byte for byte. They are
published with the project and protect nothing.
"""

from __future__ import annotations

import hashlib
from random import Random

import msgspec

from lorabridge.lorawan.device import Activation, CounterPolicy, Device, SessionKeys
from lorabridge.lorawan.types import EUI64, AES128Key, DevAddr, DeviceClass, MacVersion, NetID
from lorabridge.simulation.air import Forwarder, Gateway, Place
from lorabridge.simulation.plans import PLANS, Plan

NET_ID = NetID(0x000001)
"""The network of the recordings; NetIDs 000000 and 000001 are for private use (TS002-1.1.0 §6.1)."""
SENSOR = "sensor"
"""Tag of every device: what it measures."""

_V = MacVersion
_LOCAL_EUI = 0x02 << 56
"""The bit of a locally administered identifier."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A device of every region's recording."""

    name: str
    version: MacVersion
    metres: int
    """From the first gateway."""
    every_s: int
    first_fcnt: int = 0
    speed: str = "fast"
    """Which data rate of the plan: fast, medium, slow, wide or fsk."""
    policy: CounterPolicy = CounterPolicy.STRICT
    sensor: str = "climate"
    otaa: bool = False
    sealed: bool = False
    """The bridge does not get the AppSKey."""
    shares: str = ""
    """The role whose DevAddr this one has, too."""


ROLES = (
    Role(name="climate-1", version=_V.V1_0_3, metres=700, every_s=120, first_fcnt=118),
    Role(name="climate-2", version=_V.V1_0_2, metres=1100, every_s=300, first_fcnt=4711, speed="medium"),
    Role(name="climate-3", version=_V.V1_0_1, metres=400, every_s=420),
    Role(name="climate-4", version=_V.V1_0_0, metres=900, every_s=420, first_fcnt=33),
    Role(name="meter-1", version=_V.V1_1_0, metres=600, every_s=180, first_fcnt=2040, sensor="meter"),
    Role(name="meter-2", version=_V.V1_1_0, metres=1000, every_s=300, speed="medium", sensor="meter"),
    Role(name="meter-sealed", version=_V.V1_1_0, metres=800, every_s=420, first_fcnt=77, sensor="meter", sealed=True),
    Role(name="door-1", version=_V.V1_0_4, metres=500, every_s=240, first_fcnt=310, sensor="door"),
    Role(
        name="tracker-1", version=_V.V1_0_4, metres=1200, every_s=240, first_fcnt=9_000, sensor="tracker", speed="wide"
    ),
    Role(name="far-field", version=_V.V1_0_3, metres=6200, every_s=360, first_fcnt=1500, speed="slow"),
    Role(name="next-to-barn", version=_V.V1_0_3, metres=0, every_s=420, first_fcnt=12),
    Role(name="rolls-over", version=_V.V1_0_3, metres=700, every_s=300, first_fcnt=0xFFFD),
    Role(name="third-epoch", version=_V.V1_0_4, metres=600, every_s=300, first_fcnt=0x2_FFFE),
    Role(name="twin-a", version=_V.V1_0_3, metres=500, every_s=420, first_fcnt=60),
    Role(name="twin-b", version=_V.V1_0_3, metres=550, every_s=420, first_fcnt=61, shares="twin-a"),
    Role(name="reset-strict", version=_V.V1_0_3, metres=600, every_s=240, first_fcnt=900),
    Role(
        name="reset-confirm",
        version=_V.V1_0_3,
        metres=650,
        every_s=240,
        first_fcnt=1200,
        policy=CounterPolicy.CONFIRM,
    ),
    Role(
        name="reset-confirm-1-1",
        version=_V.V1_1_0,
        metres=750,
        every_s=240,
        first_fcnt=51,
        policy=CounterPolicy.CONFIRM,
        sensor="meter",
    ),
    Role(name="skips-1-0-3", version=_V.V1_0_3, metres=600, every_s=420, first_fcnt=140),
    Role(name="skips-1-0-4", version=_V.V1_0_4, metres=600, every_s=420, first_fcnt=150),
    Role(name="seldom", version=_V.V1_0_3, metres=800, every_s=900, first_fcnt=240),
    Role(name="fast-fsk", version=_V.V1_0_4, metres=80, every_s=420, first_fcnt=20, speed="fsk", sensor="tracker"),
    Role(name="joins-1-0-4", version=_V.V1_0_4, metres=600, every_s=900, otaa=True),
    Role(name="joins-1-1", version=_V.V1_1_0, metres=700, every_s=900, otaa=True, sensor="meter"),
)


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """A role in one region, and the device that plays it."""

    role: Role
    device: Device
    """With every key, as the device itself has them."""
    data_rate: int

    @property
    def known_to_bridge(self) -> Device:
        """The device as the device file tells of it."""
        if not self.role.sealed or self.device.session_keys is None:
            return self.device
        keys = msgspec.structs.replace(self.device.session_keys, app_s_key=None)
        return msgspec.structs.replace(self.device, session_keys=keys)


def actors(plan: Plan) -> tuple[Actor, ...]:
    """Everyone of one region; a role whose data rate the region lacks is left out."""
    speeds = {"fast": plan.fast, "medium": plan.medium, "slow": plan.slow, "wide": plan.wide, "fsk": plan.fsk}
    return tuple(
        Actor(role=role, device=_device(role, plan), data_rate=data_rate)
        for role in ROLES
        if (data_rate := speeds[role.speed]) is not None
    )


def gateways(plan: Plan, rng: Random, started_at: int) -> tuple[Gateway, ...]:
    """Three gateways: on a roof, in a barn whose counter wraps during the hour, on a tower with two antennas."""
    region = plan.region.name
    minute, wrap = 60_000_000_000, (1 << 32) * 1000
    places = (
        ("roof", Place(0, 0), Forwarder.SX1303, started_at - 9 * minute, (3, 14)),
        ("barn", BARN, Forwarder.SX1301, started_at + 25 * minute - wrap, (40, 140)),
        ("tower", Place(4200, 1600), Forwarder.TWO_ANTENNAS, started_at - 31 * minute, (18, 45)),
    )
    return tuple(
        Gateway(
            derived_eui(f"{region} gateway {name}"),
            plan,
            place,
            forwarder,
            rng=Random(rng.getrandbits(64)),  # noqa: S311  # a simulation must be repeatable
            tmst_zero_at=zero_at,
            backhaul_ms=backhaul_ms,
        )
        for name, place, forwarder, zero_at, backhaul_ms in places
    )


BARN = Place(-3400, 3900)


def _device(role: Role, plan: Plan) -> Device:
    region = plan.region.name
    name = f"{region.lower()}-{role.name}"
    base = Device(
        name=name,
        dev_eui=derived_eui(name),
        mac_version=role.version,
        activation=Activation.OTAA if role.otaa else Activation.ABP,
        counter_policy=role.policy,
        region=region,
        channels_hz=plan.added_hz,
        tags=((SENSOR, role.sensor),),
    )
    if role.otaa:
        return msgspec.structs.replace(
            base,
            join_eui=derived_eui("join server"),
            app_key=derived_key(name, "app_key"),
            nwk_key=derived_key(name, "nwk_key") if role.version.is_1_1 else None,
        )
    return msgspec.structs.replace(
        base,
        dev_addr=derived_dev_addr(f"{region.lower()}-{role.shares or role.name}"),
        session_keys=derived_session_keys(name, role.version),
    )


def derived_session_keys(name: str, version: MacVersion) -> SessionKeys:
    """The session keys of an ABP device by its name."""
    if not version.is_1_1:
        nwk_s_key = derived_key(name, "nwk_s_key")
        return SessionKeys(
            f_nwk_s_int_key=nwk_s_key,
            s_nwk_s_int_key=nwk_s_key,
            nwk_s_enc_key=nwk_s_key,
            app_s_key=derived_key(name, "app_s_key"),
        )
    return SessionKeys(
        f_nwk_s_int_key=derived_key(name, "f_nwk_s_int_key"),
        s_nwk_s_int_key=derived_key(name, "s_nwk_s_int_key"),
        nwk_s_enc_key=derived_key(name, "nwk_s_enc_key"),
        app_s_key=derived_key(name, "app_s_key"),
    )


def derived_key(name: str, which: str) -> AES128Key:
    """A key that nobody else has, the same at every run."""
    return AES128Key(_digest(f"{name} {which}", 16))


def derived_dev_addr(name: str) -> DevAddr:
    """An address of the recordings' network: NwkAddr has 25 bits under a NetID of type 0."""
    nwk_addr = int.from_bytes(_digest(f"{name} dev_addr", 4), "big") >> 7
    # The low byte is no rejoin type: a frame whose MType was flipped to rejoin-request is malformed for one reason.
    return DevAddr(NET_ID.nwk_id << 25 | nwk_addr | 0x04)


def derived_eui(name: str) -> EUI64:
    """A locally administered EUI, the same at every run."""
    return EUI64(int.from_bytes(_digest(f"{name} eui", 8), "big") & ~(0xFF << 56) | _LOCAL_EUI)


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2s(f"lorabridge recordings: {text}".encode(), digest_size=size).digest()


_HEADER = """\
# The devices of the recordings beside this file: virtual, with published keys. Use them nowhere else.
# Made by `python -m lorabridge.simulation.scenario`; a test holds it to that.
"""


def device_file() -> str:
    """The device file for all recordings, as an operator would write it."""
    tables = [device_table(actor.known_to_bridge) for plan in PLANS.values() for actor in actors(plan)]
    return _HEADER + "".join(tables)


def device_table(device: Device) -> str:
    """The `[[device]]` table of one device, keys and all."""
    rows: list[tuple[str, str | None]] = [
        ("name", device.name),
        ("dev_eui", str(device.dev_eui)),
        ("mac_version", device.mac_version.value),
        ("activation", device.activation.value),
        ("join_eui", None if device.join_eui is None else str(device.join_eui)),
        ("app_key", _hex(device.app_key)),
        ("nwk_key", _hex(device.nwk_key)),
        ("dev_addr", None if device.dev_addr is None else str(device.dev_addr)),
        *_key_rows(device),
        ("counter_policy", None if device.counter_policy is CounterPolicy.STRICT else device.counter_policy.value),
        ("region", device.region),
        ("class", None if device.device_class is DeviceClass.A else device.device_class.value),
    ]
    lines = ["", "[[device]]", *(f'{key} = "{value}"' for key, value in rows if value is not None)]
    if device.channels_hz and device.mac_version.is_1_1:
        lines.append(f"channels = [{', '.join(f'{hz / 1e6:g}' for hz in device.channels_hz)}]")
    tags = ", ".join(f'{key} = "{value}"' for key, value in device.tags)
    lines.append(f"tags = {{ {tags} }}")
    return "\n".join(lines) + "\n"


def _key_rows(device: Device) -> list[tuple[str, str | None]]:
    """Session keys by the names of the device's version."""
    keys = device.session_keys
    if keys is None:
        return []
    app = ("app_s_key", _hex(keys.app_s_key))
    if not device.mac_version.is_1_1:
        return [("nwk_s_key", _hex(keys.f_nwk_s_int_key)), app]
    return [
        ("f_nwk_s_int_key", _hex(keys.f_nwk_s_int_key)),
        ("s_nwk_s_int_key", _hex(keys.s_nwk_s_int_key)),
        ("nwk_s_enc_key", _hex(keys.nwk_s_enc_key)),
        app,
    ]


def _hex(key: AES128Key | None) -> str | None:
    return None if key is None else key.reveal().hex()
