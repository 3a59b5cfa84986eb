from collections.abc import Callable
import types

class Postponed:
    def __new__(
        cls,
        number: int,
        entered: types.FrameType,
        restore: Callable[[], object],
        error: BaseException,
    ) -> Postponed: ...
    def __call__(self, signum: int, frame: types.FrameType | None, /) -> None: ...
