"""Processes that meet over a store which others used before them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore
from torch.distributed.distributed_c10d import Store

from windtunnel.distributed import start
from windtunnel.errors import WorkError


def _meet(shared: Store, monkeypatch: pytest.MonkeyPatch, host: str, late: int = 0) -> list[tuple[Store, ...]]:
    """Three processes of a host, as threads; one comes after the others have waited for it."""
    monkeypatch.setattr(start.socket, "gethostname", lambda: host)

    def come(rank: int) -> tuple[Store, ...]:
        if rank == late:
            start.time.sleep(0.2)
        return start._meet(shared, rank, 3, timedelta(seconds=60))

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(come, range(3)))


@pytest.mark.parametrize("late", [0, 1])
def test_a_start_hears_nothing_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    shared = HashStore()
    before = _meet(shared, monkeypatch, "first")
    before[0][0].set("left", "behind")
    after = _meet(shared, monkeypatch, "second", late)
    assert all(name.startswith("second, pid ") for _, names in after for name in names)
    after[1][0].set("said", "by 1")
    assert all(store.get("said") == b"by 1" for store, _ in after)
    assert not any(store.check(["left"]) for store, _ in after)


def test_who_is_missing_is_named() -> None:
    shared = HashStore()
    shared.set("came/1", "token of an earlier start")
    with pytest.raises(WorkError, match="process 1 does not answer"):
        start._meet(shared, 0, 2, timedelta(seconds=0.2))
    with pytest.raises(WorkError, match="process 0 does not answer"):
        start._meet(shared, 1, 2, timedelta(seconds=0.2))
