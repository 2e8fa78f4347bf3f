"""The environment of the inference process: what its libraries read, and nothing that opens a door.

The worker's environment holds Deepgram's key and may hold others; the process needs none of them. The list names what
is passed on, so that a secret under a name not thought of stays behind.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NO_PROXY", "no_proxy"),
        *("SYSTEMROOT", "GLIBC_TUNABLES", "CI", "FORCE_COLOR", "NO_COLOR"),
    }
)
_PREFIXES = (
    *("LC_", "LD_", "DYLD_", "PYTHON", "MALLOC_", "COVERAGE_"),
    *("CUDA", "CUBLAS", "CUDNN", "NVIDIA_", "NV_", "NCCL_"),
    *("TORCH", "PYTORCH_", "TRITON_", "NEMO_", "NUMBA_", "MPL"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "VECLIB_"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_"),  # where the model hub keeps its files, and whether it may be asked
)
_PROXY = re.compile(r"(?:https?|all)_proxy", re.IGNORECASE)
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of the worker's environment that the inference process gets, with this process's import path.

    Left out are names that sound like a secret whatever they begin with (HF_TOKEN: log in with `hf auth login`, or
    load the model from a file), and proxies whose address holds a password.
    """
    kept = {name: value for name, value in environment.items() if _is_harmless(name, value)}
    return {**kept, "PYTHONPATH": os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)}


def _is_harmless(name: str, value: str) -> bool:
    if _SECRET.search(name):
        return False
    if _PROXY.fullmatch(name):
        return "@" not in value
    return name in _NAMES or name.startswith(_PREFIXES)
