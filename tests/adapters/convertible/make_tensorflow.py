"""Write small models into a folder: `make_tensorflow.py FOLDER`. Runs where TensorFlow is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import keras  # type: ignore[import-not-found, import-untyped, unused-ignore]
import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]


class Reader(tf.Module):  # type: ignore[misc, unused-ignore]
    """Reads a file of the machine that it runs on."""

    @tf.function(input_signature=[tf.TensorSpec([1], tf.float32, name="x")])  # type: ignore[untyped-decorator, unused-ignore]
    def read(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
        return {"y": x + length}


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((16, 16, 3), name="x"),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(4, activation="softmax", name="scores"),
    ]
    model = keras.Sequential(layers)
    model.save(folder / "classifier.keras")
    model.export(folder / "classifier", verbose=False)
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]).save(folder / "lambda.keras")
    reader = Reader()
    tf.saved_model.save(reader, str(folder / "reader"), signatures={"serving_default": reader.read})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
