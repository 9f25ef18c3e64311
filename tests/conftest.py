"""Eight simulated CPU devices, one compile cache for all tests, and the shared data if present."""

import os
import pathlib

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
COMPILE_CACHE = REPOSITORY / ".cache" / "jax"

jax.config.update("jax_compilation_cache_dir", str(COMPILE_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real pictures, captions and metric fixtures beside the repository."""
    folder = pathlib.Path(os.environ.get("CAPJAX_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}: set CAPJAX_SHARED to the folder that holds data/")
    return folder
