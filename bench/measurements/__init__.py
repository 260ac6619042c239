"""One module for each measurement: ``measure`` starts what it needs and returns what it found."""
