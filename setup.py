"""The part of the project that is compiled; all else about it is in ``pyproject.toml``."""

from setuptools import Extension
from setuptools import setup

setup(
    ext_modules=[
        Extension(
            "pytest_eventlet_debug.profiling._native",
            ["pytest_eventlet_debug/profiling/_native.c"],
            extra_compile_args=["-Wall", "-Wextra", "-Wno-cast-function-type"],
            # Where there is no compiler, profiles are counted in Python.
            optional=True,
        )
    ]
)
