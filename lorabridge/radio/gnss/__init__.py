"""The GNSS receiver of a gateway: where it is, and what time it is. Only `reader` touches a port."""
