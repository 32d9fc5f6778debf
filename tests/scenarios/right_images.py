"""Right models that convolve, pool, resize and augment images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from right import Case, around, images, net, tricky, vectors

L = keras.layers


@tricky
def convolutions_of_all_kinds(rng: np.random.Generator) -> Case:
    """Dilated, grouped, separable, depthwise and transposed convolutions with odd paddings."""
    layers = [
        L.Conv2D(4, 2, dilation_rate=2, padding="same", activation="tanh"),
        L.Conv2D(4, 3, groups=2, strides=2, padding="same", activation="gelu"),
        L.SeparableConv2D(3, 2, depth_multiplier=2),
        L.Conv2DTranspose(2, 3, strides=2, output_padding=1),
        L.UpSampling2D(interpolation="bilinear"),
        L.DepthwiseConv2D(3, padding="same"),
        L.AveragePooling2D(3, padding="same"),
        L.Flatten(),
        L.Dense(2),
    ]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@tricky
def convolutions_in_space(rng: np.random.Generator) -> Case:
    """Conv3D and MaxPool3D, the latter of which has no form in float64."""
    layers = [
        L.Conv3D(2, 2, activation="tanh"),
        L.MaxPooling3D(2),
        L.Conv3DTranspose(2, 2),
        L.GlobalAveragePooling3D(),
        L.Dense(2),
    ]
    model = net(*layers, shape=(4, 4, 4, 1))
    return Case(model, rng.normal(size=(2, 4, 4, 4, 1)), rng.normal(size=(2, 2)))


@tricky
def resized_images(rng: np.random.Generator) -> Case:
    """Crops, resizing by several rules and patches."""

    def resized(x: Any) -> Any:
        parts = [tf.image.resize(x, (5, 5), method=m) for m in ("bicubic", "bilinear", "nearest")]
        patches = tf.image.extract_patches(x, [1, 2, 2, 1], [1, 1, 1, 1], [1] * 4, "VALID")
        boxes = tf.constant([[0.1, 0.2, 0.9, 0.7], [0.0, 0.0, 1.0, 1.0]])
        cropped = tf.image.crop_and_resize(x, boxes, [0, 1], (5, 5))
        return tf.concat([*parts, tf.image.resize(patches, (5, 5)), cropped], -1)

    layers = [L.Conv2D(2, 2), L.Lambda(resized), L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@tricky
def spatial_transformer(rng: np.random.Generator) -> Case:
    """Bilinear sampling by gather_nd at places that the network predicts."""

    def sample(x: Any, shift: Any) -> Any:
        place = tf.range(4.0) + 0.3 + shift
        low = tf.floor(place)
        part = place - low
        left = tf.gather_nd(x, tf.cast(low, tf.int32)[:, None], batch_dims=0)
        right = tf.gather(x, tf.cast(low, tf.int32) + 1)
        return tf.tile((1 - part)[:, None] * left + part[:, None] * right, (2, 1))[:6]

    layer = Formula(sample, {"shift": (4,)}, keras.initializers.RandomNormal(stddev=0.05))
    return Case(around(layer), *vectors(rng))


@tricky
def augmentation_in_the_model(rng: np.random.Generator) -> Case:
    """Random flips, turns, shifts, zooms, contrast and brightness before a convolution."""
    layers = [
        L.RandomFlip(),
        L.RandomRotation(0.2),
        L.RandomTranslation(0.2, 0.2),
        L.RandomZoom(0.2),
        L.RandomContrast(0.2),
        L.RandomBrightness(0.2),
        L.Conv2D(2, 3, activation="tanh"),
        L.GlobalAveragePooling2D(),
        L.Dense(2),
    ]
    x, y = images(rng)
    return Case(net(*layers, shape=(6, 6, 3)), np.concatenate([x, x[..., :1]], -1), y)


@tricky
def pooled_and_unpooled(rng: np.random.Generator) -> Case:
    """max_pool_with_argmax and a scatter back to where the maxima were."""

    def there_and_back(x: Any) -> Any:
        top, where = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID", include_batch_in_index=True)
        flat = tf.scatter_nd(tf.reshape(where, (-1, 1)), tf.reshape(top, (-1,)), [2 * 4 * 4 * 2])
        return tf.reshape(flat, (2, 4, 4, 2))

    layers = [L.Conv2D(2, 3), L.Lambda(there_and_back), L.Conv2D(2, 2), L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@tricky
def fractional_pools(rng: np.random.Generator) -> Case:
    """Pools whose regions are drawn at random."""
    pool = L.Lambda(lambda x: tf.nn.fractional_max_pool(x, [1, 1.5, 1.5, 1], seed=3)[0], (4, 4, 2))
    layers = [L.Conv2D(2, 1), pool, L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))
