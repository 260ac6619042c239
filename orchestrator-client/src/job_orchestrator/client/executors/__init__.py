"""Ways of running a payload: one contract, one package or module for each way."""
