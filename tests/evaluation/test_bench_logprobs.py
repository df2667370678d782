"""The learner's memory does not grow with the vocabulary, beside the head's own gradient."""

from motet.evaluation.bench_logprobs import bench_logprob_memory


def test_memory_is_flat_in_the_vocabulary():
    rows = bench_logprob_memory((256, 2048, 8192), num_actions=512, width=16, budget=1 << 17)
    assert [row.vocabulary for row in rows] == [256, 2048, 8192]
    small, *larger = rows
    assert small.all_logits_mb == 512 * 256 * 4 / 1e6
    for row in larger:
        assert row.head_mb == row.vocabulary * 16 * 4 / 1e6 and row.seconds > 0
        assert row.rest_mb < 1.2 * small.rest_mb + 2 * row.head_mb
    assert larger[-1].rest_mb < 0.4 * larger[-1].all_logits_mb


def test_without_chunks_it_grows():
    small, large = bench_logprob_memory((256, 2048), num_actions=512, width=16, budget=1 << 30)
    assert large.rest_mb > 6 * small.rest_mb
