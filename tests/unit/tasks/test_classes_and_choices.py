"""Which output is which class, which images are judged on, and guesses that are kept."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.accuracy.predictions import (
    ImageSet,
    PredictionCache,
    Predictions,
    choose_images,
    class_names,
    output_of_class,
)
from search.supernet.data.images import Normalization, split_source
from search.supernet.data.sources import open_source
from tests.support.errors import raises


def named(tmp_path, *names):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(names) + "\n")
    return class_names(str(path))


def test_imagenets_synsets_are_known_by_name():
    names = class_names("imagenet")
    assert (len(names.names), names.names[0], names.names[-1]) == (1000, "n01440764", "n15075141")
    places = output_of_class("net", 1000, "imagefolder:x", ("n15075141", "n01440764"), names)
    assert places.tolist() == [999, 0]


def test_names_of_a_file_say_which_output_is_which(tmp_path):
    names = named(tmp_path, "dog", "cat", "eel")
    assert output_of_class("net", 3, "x", ("cat", "dog"), names).tolist() == [1, 0]
    assert output_of_class("net", 3, "x", ("cat", "dog", "eel"), names).tolist() == [1, 0, 2]
    assert output_of_class("net", 2, "x", ("cat", "dog"), names).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("outputs", "classes", "given", "what"),
    [
        (1000, 10, None, "net has 1000 outputs and x 10 classes; name the outputs with --classes imagenet"),
        (8, 10, None, "8 outputs and x 10 classes, labels go beyond them up to 9; name"),
        (5, 2, ("dog", "cat", "eel"), "--classes .* has 3 names; name"),
        (3, 10, ("dog", "cat", "eel"), "class '0' of x is not one of the 3 of --classes .*10 such in all"),
    ],
)
def test_classes_that_do_not_fit_are_one_line(outputs, classes, given, what, tmp_path):
    names = named(tmp_path, *given) if given else None
    with pytest.raises(UsageError, match=what) as caught:
        output_of_class("net", outputs, "x", tuple(map(str, range(classes))), names)
    assert "\n" not in str(caught.value)


def test_files_of_names_that_are_none_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="'cat' is listed 2 times"):
        named(tmp_path, "cat", "dog", "cat")
    with pytest.raises(UsageError, match="0 names"):
        named(tmp_path)
    with pytest.raises(InvalidArtifactError, match="No such file"):
        class_names(str(tmp_path / "none.txt"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArtifactError, match="not UTF-8"):
        class_names(str(tmp_path / "bytes"))


def test_images_are_those_that_training_holds_out():
    split = split_source(open_source("digits"))
    images, source = choose_images("digits")
    assert np.array_equal(images.indices, split.validation)
    assert images.digest == source.digest
    assert np.array_equal(choose_images("digits", "search")[0].indices, split.search)
    assert len(choose_images("digits", "all")[0].indices) == len(source.labels)
    some = choose_images("digits", "validation", 20)[0].indices
    assert (len(some), set(some) <= set(split.validation)) == (20, True)
    assert np.array_equal(some, choose_images("digits", "validation", 20)[0].indices)
    assert not np.array_equal(some, choose_images("digits", "validation", 20, seed=1)[0].indices)
    with pytest.raises(UsageError, match="--split 'test': expected validation, search, all"):
        choose_images("digits", "test")
    with pytest.raises(UsageError, match="--images 100000: there are"):
        choose_images("digits", "all", 100_000)


def test_predictions_are_cached_by_all_inputs(tmp_path):
    images = ImageSet("digits", "d" * 64, np.arange(3))
    guesses = Predictions(np.array([[1, 0], [0, 1]], np.int32), 2, np.array([0.75, 0.5]))
    kept = PredictionCache(tmp_path, "program a", images)
    assert kept.read() is None
    kept.write(guesses)
    again = PredictionCache(tmp_path, "program a", ImageSet("digits", "d" * 64, np.arange(3))).read()
    assert (again.first.tolist(), again.outputs, again.confidence.tolist()) == (
        [[1, 0], [0, 1]],
        2,
        [0.75, 0.5],
    )
    others = [
        PredictionCache(tmp_path, "program b", images),
        PredictionCache(tmp_path, "program a", ImageSet("digits", "e" * 64, np.arange(3))),
        PredictionCache(tmp_path, "program a", ImageSet("digits", "d" * 64, np.arange(1, 4))),
        PredictionCache(tmp_path, "program a", images.seen_with(Normalization((0.5,) * 3), 256)),
        PredictionCache(tmp_path, "program a", images.seen_with(Normalization(), 64)),
    ]
    assert len({other.path for other in (kept, *others)}) == 6
    assert [other.read() for other in others] == [None] * 5
    nowhere = PredictionCache(None, "program a", images)
    nowhere.write(guesses)
    assert nowhere.read() is None


def test_predictions_of_older_versions_have_unknown_confidences(tmp_path):
    cache = PredictionCache(tmp_path, "program a", ImageSet("digits", "d" * 64, np.arange(3)))
    cache.path.parent.mkdir()
    save_file({"first": np.array([[1, 0]], np.int32)}, cache.path, {"outputs": "2"})
    known = cache.read().followed_by(Predictions(np.array([[0, 1]], np.int32), 2, np.array([0.5])))
    assert known.first.tolist() == [[1, 0], [0, 1]]
    assert np.isnan(known.confidence).tolist() == [True, False]
    cache.write(known)
    assert np.isnan(cache.read().confidence).tolist() == [True, False]


def test_the_confidence_is_the_largest_softmax_probability():
    logits = np.array([[np.log(3), 0.0], [1000.0, 1000.0]], np.float32)
    assert Predictions.of_logits(logits).confidence == pytest.approx([0.75, 0.5])


@pytest.mark.parametrize("harm", ["cut", "outputs", "more", "confidence"])
def test_damaged_predictions_are_refused(harm, tmp_path):
    images = ImageSet("digits", "d" * 64, np.arange(3))
    kept = PredictionCache(tmp_path, "program a", images)
    rows = [[1, 0]] * (4 if harm == "more" else 2)
    confidence = np.full(len(rows), 2.0 if harm == "confidence" else 0.5)
    kept.write(Predictions(np.array(rows, np.int32), 1 if harm == "outputs" else 2, confidence))
    if harm == "cut":
        kept.path.write_bytes(kept.path.read_bytes()[:-3])
    with raises("damaged_cache"):
        kept.read()
