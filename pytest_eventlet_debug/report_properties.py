"""Names in ``report.user_properties``, for JUnit, pytest-html, pytest-xdist and our summary."""

from __future__ import annotations

from typing import Final

#: A directory with recordings of the test.
DIRECTORY_PROPERTY: Final = "eventlet_artifacts"

#: What a tracer could not do, in one line.
ERROR_PROPERTY: Final = "eventlet_tracer_error"
