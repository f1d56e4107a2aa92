from modelyard.serving.ids import PredictionIds
from modelyard.storage.ulid import encode


def test_ids_are_ulids_that_ascend():
    ids = PredictionIds()
    made = [ids.new(time_ns) for time_ns in (1_700_000_000_000_000_000 + i * 1_000 for i in range(5_000))]
    assert made == sorted(set(made))
    assert {len(id) for id in made} == {26}
    assert made[0][:10] == encode(1_700_000_000_000, bytes(10))[:10]


def test_two_processes_do_not_meet():
    one, two = PredictionIds(), PredictionIds()
    assert not {one.new(0) for _ in range(100)} & {two.new(0) for _ in range(100)}


def test_a_clock_that_goes_back_gives_no_id_twice():
    ids = PredictionIds()
    assert len({ids.new(t * 1_000_000) for t in (5, 4, 5, 4, 5)}) == 5
