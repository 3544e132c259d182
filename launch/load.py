"""Models to use or to go on from: the names of hybriko_jax.console.load."""

from hybriko_jax.console.load import SYSTEM_PROMPT as SYSTEM_PROMPT
from hybriko_jax.console.load import Loaded as Loaded
from hybriko_jax.console.load import adapter as adapter
from hybriko_jax.console.load import checkpoint as checkpoint
from hybriko_jax.console.load import find as find
from hybriko_jax.console.load import run_config as run_config
