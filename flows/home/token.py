"""The token that lets this home's processes, and nobody else, into a Ray cluster on this machine."""

import os
import secrets
from pathlib import Path


SIGN_IN = "`pairflow token` prints what its page asks for"
"""Said beside every link to Ray's pages."""
