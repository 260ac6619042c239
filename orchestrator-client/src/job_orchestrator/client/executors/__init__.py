"""How a payload is run: one contract, one module for each way."""
