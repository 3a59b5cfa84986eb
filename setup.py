"""The part of the project that is compiled; all else about it is in ``pyproject.toml``."""

import os

from setuptools import Extension
from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

#: Files of each extension: its sources without ``.c``, and its headers without ``.h``.
_EXTENSIONS = {
    "alive._heap": (("_heap",), ()),
    "helper._sockets": (("_sockets",), ()),
    "profiling._native": (("_native", "lines", "marks", "slot"), ("lines", "map", "marks", "slot")),
    "stalls._watcher": (("_watcher",), ()),
    "system._collector": (("_collector",), ()),
    "system._handlers": (("_handlers",), ()),
}


class Wheel(bdist_wheel):
    """A wheel whose tag says what it holds: for any platform if nothing was compiled."""

    def run(self) -> None:
        self.run_command("build")
        extensions = self.get_finalized_command("build_ext").get_outputs()
        if not any(map(os.path.exists, extensions)):
            self.distribution.ext_modules = None
            self.root_is_pure = True
        super().run()


def _extension(name: str, sources: tuple[str, ...], headers: tuple[str, ...]) -> Extension:
    folder = f"pytest_eventlet_debug/{name.partition('.')[0]}"
    return Extension(
        f"pytest_eventlet_debug.{name}",
        [f"{folder}/{source}.c" for source in sources],
        depends=[f"{folder}/{header}.h" for header in headers],
        extra_compile_args=["-Wall", "-Wextra", "-Wno-cast-function-type"],
        # Where there is no compiler, profiles are counted and leaks looked for in Python, calls
        # have no lines, stalls are noticed when they are over, strace takes longer to name sockets,
        # a full garbage collection takes a little longer, and what a signal handler raises in our
        # code is lost.
        optional=True,
    )


setup(
    cmdclass={"bdist_wheel": Wheel},
    ext_modules=[_extension(name, *files) for name, files in _EXTENSIONS.items()],
)
