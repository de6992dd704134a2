import random

from earn_plugin.data.held_out import split


def names(count, start=0):
    return [f'photos/IMG_{number:04d}.jpg' for number in range(start, start + count)]


def test_about_a_tenth_is_held_out_and_never_trained_on():
    for count in (*range(2, 40), 100, 1000):
        train, val = split(names(count))
        assert sorted(train + val) == names(count)
        assert 1 <= len(val) <= min(10, count - 1)
    assert sum(len(split(names(20, 100 * series))[1]) for series in range(100)) in range(150, 300)


def test_photographs_added_later_never_hold_out_one_that_was_trained_on():
    generator = random.Random(0)
    for series in range(50):
        before = [f'{generator.getrandbits(40)}.jpg' for _ in range(generator.randint(5, 150))]
        added = [f'{generator.getrandbits(40)}.jpg' for _ in range(generator.randint(1, 150))]
        trained = split(before)[0]
        assert not set(trained) & set(split(sorted(before + added))[1]), series


def test_overlapping_sub_images_stay_together_and_one_stands_for_them():
    """And the same photographs are held out as whole ones."""
    photographs = names(30)
    sub_images = [f'{name[7:-4]}_s{number:03d}' for name in photographs for number in range(1, 6)]
    train, val = split(sub_images)
    held = {name[7:-4] for name in split(photographs)[1]}
    assert val == [f'{name}_s003' for name in sorted(held)]
    assert train == [name for name in sub_images if name[:-5] not in held]


def test_a_single_photograph_is_in_both_parts():
    assert split(['a.jpg']) == (['a.jpg'], ['a.jpg'])
    assert split(['a_s001', 'a_s002', 'a_s003']) == (['a_s001', 'a_s002', 'a_s003'], ['a_s002'])
