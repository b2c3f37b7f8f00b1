from solo.args.config import Difference, differences, may_change, never_matters, unknown_names


def test_differences_are_found_in_sections_and_lists():
    old = {"a": {"b": 1, "c": [1, 2]}, "augmentations": [{"size": 8}], "seed": 5, "gone": 1}
    new = {"a": {"b": 1.0, "c": [1, 3]}, "augmentations": [{"size": 9}], "seed": 5, "fresh": 1}
    assert differences(old, new) == [Difference("a.c", [1, 2], [1, 3]), Difference("augmentations[0].size", 8, 9)]


def test_lightnings_keys_count_where_only_one_has_them():
    old, new = {"precision": "16-mixed", "seed": 5}, {"gradient_clip_val": 1.0, "seed": 5}
    assert [str(change) for change in differences(old, new)] == [
        "gradient_clip_val: (not set) -> 1.0",
        "precision: 16-mixed -> (not set)",
    ]


def test_keys_and_sections_may_change():
    idle = never_matters()
    assert may_change("data.num_workers", idle) and may_change("wandb.project", idle)
    assert not may_change("data.fraction", idle) and not may_change("checkpoints", idle)
    assert may_change("online.rows", idle) and not may_change("online.stop_on_collapse", idle)
    assert may_change("augmentations[0].crop_size", ["augmentations"]) and not may_change("seed", [])


def test_misspelt_names():
    configs = ({"optimizer": {"lr": 0.1}}, {"seed": 5})
    assert unknown_names(["optimizer.lr", "seed", "optimizer", "precision"], *configs) == []
    assert unknown_names(["optimizer.lrr", "sed"], *configs) == ["optimizer.lrr", "sed"]
