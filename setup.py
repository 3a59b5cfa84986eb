"""The part of the project that is compiled; all else about it is in ``pyproject.toml``."""

import os

from setuptools import Extension
from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


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
            f"pytest_eventlet_debug.{name}",
            [f"pytest_eventlet_debug/{name.replace('.', '/')}.c"],
            extra_compile_args=["-Wall", "-Wextra", "-Wno-cast-function-type"],
            # Where there is no compiler, profiles are counted in Python, and stalls are
            # noticed when they are over.
            optional=True,
        )
        for name in ("profiling._native", "stalls._watcher")
    ],
)
