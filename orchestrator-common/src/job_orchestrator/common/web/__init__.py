"""The HTTP side that both services share: from the socket to the answer.

``service`` runs an application and ``listener`` has its socket; ``error_answers`` turns what
handlers raise into answers, ``answers`` are those that both services give, ``streaming`` those that
go on for long, and ``openapi`` documents them all.
"""
