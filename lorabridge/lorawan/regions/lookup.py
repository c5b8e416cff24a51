"""Every region by its name."""

from __future__ import annotations

from lorabridge.lorawan.regions.as923 import AS923
from lorabridge.lorawan.regions.asia import CN779, IN865, KR920
from lorabridge.lorawan.regions.europe import EU433, EU868, RU864
from lorabridge.lorawan.regions.fixed import AU915, CN470, US915
from lorabridge.lorawan.regions.ism2400 import ISM2400

_IN_ORDER = (EU868, US915, CN779, EU433, AU915, CN470, *AS923, KR920, IN865, RU864, ISM2400)
"""As RP002-1.0.4 has them; it calls them EU863-870, US902-928 and so on."""

REGIONS = {region.name: region for region in _IN_ORDER}
"""Every region by its name."""
