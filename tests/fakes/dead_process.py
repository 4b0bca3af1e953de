"""An engine process that ends as soon as it starts, as in an installation with a part missing."""

import os
from typing import NoReturn


def die(*_: object) -> NoReturn:
    """In place of ``engine_process.worker_main``."""
    os._exit(1)
