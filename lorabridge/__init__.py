"""Verify first, then never lose it: a bridge between LoRaWAN radio and AWS IoT Core."""

__version__ = "0.1.0"
