"""The air side: one adapter a source of frames."""
