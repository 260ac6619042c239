"""The executor that runs payloads as processes of this machine."""
