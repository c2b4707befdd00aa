"""The OpenDSS engine (the only import of it), the feeder description, the batch power flow."""
