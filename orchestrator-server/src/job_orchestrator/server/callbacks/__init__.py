"""Notifications of ended jobs to callback URLs."""
