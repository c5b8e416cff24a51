"""Virtual devices, attackers, and the loopback stand-in for the endpoint."""
