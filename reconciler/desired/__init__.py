"""The desired state: `reader` for the daemon, `writer` and `placement` as the only ones that change it."""
