"""Requests of stores and operators as they reach an actor."""
