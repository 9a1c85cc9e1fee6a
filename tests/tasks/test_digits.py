import numpy as np

from qs5 import tasks

IDENTITY = "dedd978ebd0e6e8c5da1264c5e9735f26567f128ca717483f06b391c43aa3440"


def test_shapes_and_range():
    digits = tasks.load("digits")
    assert (digits.length, digits.d_in, digits.d_out, digits.metric) == (64, 1, 10, "accuracy")
    for part in digits.splits.values():
        assert part.x.dtype == np.uint8
        assert part.x.max() == 16
        assert part.lengths is None
    assert [len(part) for part in digits.splits.values()] == [1259, 269, 269]


def test_encoding_is_exact_and_within_0_and_1():
    digits = tasks.load("digits")
    encoded = digits.encoding(digits.test.x)
    assert (encoded.min(), encoded.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(encoded * 16, digits.test.x)


def test_the_splits_hold_the_bundled_images_once_each():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    digits = tasks.load("digits")
    ours = np.concatenate([np.c_[part.x[:, :, 0], part.y] for part in digits.splits.values()])
    theirs = np.c_[np.asarray(images), np.asarray(labels)]
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_splits_are_stratified():
    digits = tasks.load("digits")
    for part in (digits.validation, digits.test):
        assert set(np.bincount(part.y)) <= {26, 27}


def test_identity_is_the_same_everywhere():
    assert tasks.load("digits").identity == IDENTITY
