"""torchao, imported without what it says about GPU libraries that are not there.

Import this module before torchao: the messages come while torchao is being imported.
"""

from __future__ import annotations

import logging
import warnings

_TALKERS = ("torchao", "torch.utils._pytree")


def _import_quietly() -> None:
    levels = {name: logging.getLogger(name).level for name in _TALKERS}
    for name in _TALKERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401, PLC0415
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


_import_quietly()
