"""What happened: to the database, to Prometheus, to whoever asks."""
