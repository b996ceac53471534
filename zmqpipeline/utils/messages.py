"""The same as `zmqpipeline.messages`, under the name of the first edition of the library."""

from __future__ import annotations

from zmqpipeline.messages import *  # noqa: F403
from zmqpipeline.messages import __all__ as __all__
