"""Commands of ``jo``, each loaded when it is used."""
