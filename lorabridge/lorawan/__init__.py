"""The protocol: bytes, keys and time go in, values come out. No input or output."""
