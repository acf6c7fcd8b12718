"""Which layer to look at: the worst of the first unsound ones that nothing excuses."""

from resdeploy.deploy.metrics.layer_error import LayerError, culprit


def _layers(*own_db: float, excused: tuple[int, ...] = ()) -> list[LayerError]:
    ratios = [0.0 if k in excused else 10 ** (-db / 10) for k, db in enumerate(own_db)]
    return [
        LayerError(f"conv{k}", "Conv", db, db, ratio / sum(ratios), k in excused)
        for k, (db, ratio) in enumerate(zip(own_db, ratios, strict=True))
    ]


def test_in_a_sound_graph_the_largest_share_is_named() -> None:
    assert culprit(_layers(30, 22, 25)).name == "conv1"


def test_the_worst_of_the_first_unsound_layers_in_a_row() -> None:
    assert culprit(_layers(30, 4, 1, 3, 20, -10)).name == "conv2"


def test_an_excused_layer_is_passed_over() -> None:
    assert culprit(_layers(30, -5, 25, 3, excused=(1,))).name == "conv3"
    assert culprit(_layers(30, -5, 25, excused=(1,))).name == "conv2"
