"""`/openapi.json`."""

from typing import Any


def openapi_document() -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "Shoal", "version": "0.1.0"}, "paths": {}}
