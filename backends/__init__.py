"""Backends: one process per loaded model, spoken to over gRPC. Run as `python -m backends ENGINE`."""
