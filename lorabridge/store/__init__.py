"""What must survive: device files, sessions, the outbox."""
