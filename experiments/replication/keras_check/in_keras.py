"""The listings' networks in Keras, compared with what `check.py` saved. Runs in the benchmark's environment."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, regularizers


class RBFLayer(layers.Layer):
    """exp(-gamma * ||x - mu||^2) for each unit's centre mu."""

    def __init__(self, units: int, gamma: float) -> None:
        super().__init__()
        self.units, self.gamma = units, gamma

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.mu = self.add_weight(shape=(input_shape[-1], self.units), initializer="uniform")

    def call(self, inputs: Any) -> Any:
        squares = keras.ops.sum(keras.ops.square(keras.ops.expand_dims(inputs, -1) - self.mu), axis=1)
        return keras.ops.exp(-self.gamma * squares)


def smith_dense() -> list[Any]:
    dense = partial(layers.Dense, activation="relu", kernel_regularizer=regularizers.L2(0.0001))
    return [layers.Flatten(), dense(700), layers.Dense(10, activation="softmax")]


def smith_cnn() -> list[Any]:
    dense = partial(layers.Dense, activation="relu", kernel_regularizer=regularizers.L2(0.0001))
    conv = partial(layers.Conv2D, activation="relu", padding="valid")
    return [
        conv(5, 10, padding="same"),
        conv(5, 10, padding="same"),
        conv(5, 10, padding="same"),
        layers.AveragePooling2D(2),
        conv(16, 5),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        dense(84),
        dense(10, activation="softmax"),
    ]


def blog_dense() -> list[Any]:
    dense = partial(layers.Dense, activation="relu")
    return [layers.Flatten(), dense(units=300), dense(units=100), dense(units=10, activation="softmax")]


def blog_cnn1() -> list[Any]:
    conv = partial(layers.Conv2D, kernel_size=(3, 3), activation="relu")
    return [
        conv(32),
        layers.MaxPooling2D((2, 2)),
        conv(64),
        conv(64),
        layers.MaxPooling2D((2, 2)),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ]


def blog_cnn2() -> list[Any]:
    conv = partial(layers.Conv2D, kernel_size=(3, 3), padding="same", activation="relu")
    return [
        conv(32, kernel_initializer="he_normal"),
        layers.MaxPooling2D((2, 2)),
        layers.Dropout(0.2),
        conv(64),
        layers.MaxPooling2D((2, 2)),
        layers.Dropout(0.2),
        conv(128),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]


def lenet5(activation: str, output: Any) -> list[Any]:
    return [
        layers.ZeroPadding2D(2),
        layers.Conv2D(6, (5, 5), padding="same", activation=activation),
        layers.AveragePooling2D((2, 2), strides=2),
        layers.Conv2D(16, (5, 5), padding="same", activation=activation),
        layers.AveragePooling2D((2, 2), strides=2),
        layers.Conv2D(120, (5, 5), activation=activation),
        layers.Flatten(),
        layers.Dense(84, activation=activation),
        output,
    ]


SYSTEMS = {
    "smith-dense": smith_dense,
    "smith-cnn": smith_cnn,
    "blog-dense": blog_dense,
    "blog-cnn1": blog_cnn1,
    "blog-cnn2": blog_cnn2,
    "blog-lenet5": lambda: lenet5("tanh", RBFLayer(10, 0.5)),
    "blog-lenet5-far": lambda: lenet5("tanh", RBFLayer(10, 0.5)),
    "blog-lenet5-relu": lambda: lenet5("relu", layers.Dense(10, activation="softmax")),
}


def main() -> None:
    system, path = sys.argv[1:]
    ours = np.load(path)
    model = keras.Sequential([keras.Input((28, 28, 1)), *SYSTEMS[system]()])
    weights = [ours[f"weight_{i}"] for i in range(len(model.weights))]
    model.set_weights([to_keras(w, k.shape, model) for w, k in zip(weights, model.weights, strict=True)])
    images = tf.constant(ours["images"].transpose(0, 2, 3, 1))
    with tf.GradientTape() as tape:
        outputs = model(images, training=False)
        loss = keras.losses.SparseCategoricalCrossentropy()(ours["labels"], outputs) + sum(model.losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    outputs = np.clip(outputs.numpy(), 1e-7, 1 - 1e-7)  # as the loss takes them
    expected = [to_keras(ours[f"gradient_{i}"], k.shape, model) for i, k in enumerate(model.trainable_variables)]
    differences = {
        "outputs": relative(outputs / outputs.sum(1, keepdims=True), ours["outputs"]),
        "gradients": max(relative(g.numpy(), e) for g, e in zip(gradients, expected, strict=True)),
        "loss": float(loss),
        "parameters": model.count_params(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }
    print(json.dumps(differences))


def to_keras(array: np.ndarray, shape: tuple[int, ...], model: keras.Model) -> np.ndarray:
    """A PyTorch parameter in Keras's order: kernels (h, w, in, out), dense weights (in, out), pixels before channels."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 1:
        return array
    flatten = next(layer for layer in model.layers if isinstance(layer, layers.Flatten))
    _, *image = flatten.input.shape
    if len(image) == 3 and array.shape[1] == np.prod(image):
        height, width, channels = image
        array = array.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(array), -1)
    return array.T.reshape(shape)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
