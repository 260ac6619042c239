"""Replay of a trace of jobs through the policies, on a virtual clock."""
