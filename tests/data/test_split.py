import torch
from hypothesis import given
from hypothesis import strategies as st

from targetprop.data.keyed import Stream, keyed_generator
from targetprop.data.split import stratified_split

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(torch.tensor)


@given(LABELS, st.data(), st.integers(0, 2**40))
def test_split_is_a_partition_with_every_class_at_its_share(
    labels: torch.Tensor, data: st.DataObject, seed: int
) -> None:
    count = data.draw(st.integers(0, len(labels)))
    kept, held = stratified_split(labels, count, keyed_generator(seed, Stream.SPLIT))
    assert len(held) == count
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(len(labels)))
    for label in range(6):
        share = int((labels == label).sum()) * count / len(labels)
        assert abs(int((labels[held] == label).sum()) - share) < 1


def test_split_depends_on_the_seed() -> None:
    labels = torch.arange(100) % 10
    first, again, other = (stratified_split(labels, 20, keyed_generator(s, Stream.SPLIT))[1] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_keys_give_unrelated_generators() -> None:
    keys = [(0, Stream.ORDER, 0), (0, Stream.ORDER, 1), (1, Stream.ORDER, 0), (0, Stream.AUGMENT, 0)]
    draws = {tuple(torch.rand(3, generator=keyed_generator(*key)).tolist()) for key in keys}
    assert len(draws) == len(keys)
