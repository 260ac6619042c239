"""One module for each measurement: ``measure`` starts the services and returns an Outcome."""
