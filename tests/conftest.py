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
COMPILED_QUICKLY = {
    "models", "parallel", "rewards", "tasks", "weights",
    "test_colabs.py", "test_configs.py", "test_parts.py",
}  # fmt: skip

jax.config.update("jax_compilation_cache_dir", str(COMPILE_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real pictures, captions and metric fixtures beside the repository."""
    folder = pathlib.Path(os.environ.get("CAPJAX_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}: set CAPJAX_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _compile_effort(request):
    """Less of it where programs run once or twice and do not wait for XLA's best efforts."""
    before = jax.config.read("jax_disable_most_optimizations")
    quickly = not COMPILED_QUICKLY.isdisjoint(request.path.relative_to(REPOSITORY).parts)
    jax.config.update("jax_disable_most_optimizations", quickly or before)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
