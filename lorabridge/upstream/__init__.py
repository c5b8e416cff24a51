"""The cloud side: event schema, topics, TLS, the AWS IoT connection, the drain of the outbox."""
