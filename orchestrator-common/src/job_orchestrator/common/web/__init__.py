"""The HTTP side that both services share, from the socket to the response.

``service`` runs an application on the socket of ``listener``; ``errors`` translates exceptions,
``answers`` has responses of both services, ``streaming`` long responses; ``openapi`` documents the
routes.
"""
