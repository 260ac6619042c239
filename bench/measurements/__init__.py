"""One module for each measurement: ``measure`` starts the services and returns the outcome."""
