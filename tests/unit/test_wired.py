"""The wired limit, with Metal's calls replaced: there is none on other machines."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_diffgemma.device.wired import wired


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every limit that is set; the first is that of the system."""
    given = [7]

    def set_limit(limit: int) -> int:
        given.append(limit)
        return given[-2]

    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 1000})
    monkeypatch.setattr(mx, "set_wired_limit", set_limit)
    return given


def test_the_limit_is_raised_and_put_back(limits: list[int]) -> None:
    with wired():
        assert limits == [7, 1000]
    assert limits == [7, 1000, 7]


def test_the_last_of_several_users_puts_it_back(limits: list[int]) -> None:
    first, second = wired(), wired()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert limits == [7, 1000]
    second.__exit__(None, None, None)
    assert limits == [7, 1000, 7]


def test_it_is_put_back_after_an_error(limits: list[int]) -> None:
    with pytest.raises(ValueError, match="broken"), wired():
        raise ValueError("broken")
    assert limits == [7, 1000, 7]


def test_without_metal_nothing_is_set(limits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    with wired():
        pass
    assert limits == [7]
