"""The corridor that joins radio, core, store and upstream, and what keeps it standing."""
