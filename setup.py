"""The part of the project that is compiled; all else about it is in ``pyproject.toml``."""

import os

from setuptools import Extension
from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

_PROFILING = "pytest_eventlet_debug/profiling"


class Wheel(bdist_wheel):
    """A wheel whose tag says what it holds: for any platform if nothing was compiled."""

    def run(self) -> None:
        self.run_command("build")
        extensions = self.get_finalized_command("build_ext").get_outputs()
        if not any(map(os.path.exists, extensions)):
            self.distribution.ext_modules = None
            self.root_is_pure = True
        super().run()


setup(
    cmdclass={"bdist_wheel": Wheel},
    ext_modules=[
        Extension(
            "pytest_eventlet_debug.profiling._native",
            [f"{_PROFILING}/{name}.c" for name in ("_native", "lines", "slot")],
            depends=[f"{_PROFILING}/{name}.h" for name in ("lines", "map", "slot")],
            extra_compile_args=["-Wall", "-Wextra", "-Wno-cast-function-type"],
            # Where there is no compiler, profiles are counted in Python.
            optional=True,
        )
    ],
)
