"""One node: observe → diff → guard → apply → record, and the cadence around it."""
