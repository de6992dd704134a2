import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earn_plugin.prepare.store import Store


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=40))
def test_room_grows_with_what_is_put(tmp_path_factory, sizes):
    """From room for next to nothing; the file is no larger than what is in it."""
    folder = tmp_path_factory.mktemp('lmdb')
    store = Store(folder, room=2**19)
    for number, size in enumerate(sizes):
        store.put(f'{number:03d}', bytes([number]) * size)
    store.commit()
    store.close()
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert [bytes(value) for _, value in transaction.cursor()] == [bytes([n]) * s for n, s in enumerate(sizes)]
    assert (folder / 'data.mdb').stat().st_size < sum(sizes) + 8192 * (len(sizes) + 32)


def test_many_small_values_and_commits(tmp_path):
    store = Store(tmp_path, room=2**19)
    for number in range(3000):
        store.put(f'{number:05d}', b'x' * 500)
        if not number % 10:
            store.commit()
    store.commit()
    store.close()
    with lmdb.open(str(tmp_path), readonly=True, lock=False) as environment:
        assert environment.stat()['entries'] == 3000


def test_what_was_not_committed_is_not_there(tmp_path):
    store = Store(tmp_path)
    store.put('a', b'1')
    store.commit()
    store.put('b', b'2')
    store.close()
    with lmdb.open(str(tmp_path), readonly=True, lock=False) as environment:
        assert environment.stat()['entries'] == 1


def test_keys_are_ascii(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(UnicodeEncodeError):
        store.put('ü', b'1')
    store.close()
