"""The outside world: result files, MQTT, profiles; each behind a small port."""
