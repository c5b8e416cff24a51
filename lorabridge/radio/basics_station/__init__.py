"""LoRa Basics Station: the endpoint (LNS) that stations connect to over WebSocket."""
