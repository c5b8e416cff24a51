"""ChirpStack Concentratord: the daemon that drives a gateway's concentrator, spoken to over ZeroMQ."""
