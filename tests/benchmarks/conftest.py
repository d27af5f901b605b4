"""A cache of decoded data that lives as long as the test."""

# Imported before the first test: it sets an environment variable, which would count as that test's leak.
import lightning.fabric  # noqa: F401
import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path_factory.mktemp("fenland-cache")))
