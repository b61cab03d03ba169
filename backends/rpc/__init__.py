"""Stubs generated from proto/backend.proto by `make proto`. Do not edit."""
