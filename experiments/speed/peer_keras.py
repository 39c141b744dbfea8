"""Peer (d) of the speed benchmark: k-fold cross-validation with Keras 3 on TensorFlow.

Written as a Keras user would: all images in memory as float32, channels last, one compiled model and one
model.fit for each fold, clear_session between them.  The compile settings (jit_compile,
steps_per_execution) are the fastest in float32 of those measured; options change them for a trial.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import layers
from peer_common import BATCH_SIZE, Stopwatch, command_line, training_arrays, write_report
from sklearn.model_selection import KFold

JIT = {"sharifi-cnn": "off", "patel-ann": "off"}
STEPS_PER_EXECUTION = {"sharifi-cnn": 64, "patel-ann": 64}


def sharifi_cnn():
    def normalise():
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)  # torch's defaults in Keras's terms

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, padding="same"),
            normalise(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3),
            normalise(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(600),
            layers.Dropout(0.25),
            layers.Dense(120),
            layers.Dense(10),
        ]
    )
    # Keras's weight_decay is decoupled (as in AdamW); torch.optim.Adam adds it to the gradient (L2).
    optimizer = keras.optimizers.Adam(learning_rate=1e-3, weight_decay=1e-5)
    return model, optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def patel_ann():
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.25),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.25),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return model, keras.optimizers.Adam(learning_rate=3e-3), keras.losses.SparseCategoricalCrossentropy()


class TrainingTime(keras.callbacks.Callback):
    """Times the training part of each epoch; fit validates inside the epoch, so that is paused."""

    def __init__(self, stopwatch):
        super().__init__()
        self.stopwatch = stopwatch

    def on_epoch_begin(self, epoch, logs=None):
        self.stopwatch.new_epoch()

    def on_test_begin(self, logs=None):
        self.stopwatch.pause()

    def on_test_end(self, logs=None):
        self.stopwatch.resume()

    def on_epoch_end(self, epoch, logs=None):
        self.stopwatch.pause()


def main():
    parser = command_line(__doc__.splitlines()[0])
    parser.add_argument("--jit", choices=["on", "off", "auto"], help="jit_compile (XLA)")
    parser.add_argument("--steps-per-execution", type=int)
    parser.add_argument("--dtype", default="float32", choices=["float32", "mixed_bfloat16"])
    options = parser.parse_args()
    jit = options.jit or JIT[options.system]
    steps = options.steps_per_execution or STEPS_PER_EXECUTION[options.system]
    keras.utils.set_random_seed(0)
    stopwatch, images_trained, val_accuracy = Stopwatch(), 0, []

    images, labels = training_arrays()
    images = images[..., None].astype("float32") / 255
    kfold = KFold(n_splits=options.folds, shuffle=True, random_state=0)
    for fold, (train_index, val_index) in enumerate(kfold.split(images)):
        if fold == options.max_folds:
            break
        keras.backend.clear_session()
        keras.config.set_dtype_policy(options.dtype)  # here, because clear_session resets it
        model, optimizer, loss = sharifi_cnn() if options.system == "sharifi-cnn" else patel_ann()
        model.compile(
            optimizer=optimizer,
            loss=loss,
            metrics=["accuracy"],
            jit_compile={"on": True, "off": False, "auto": "auto"}[jit],
            steps_per_execution=steps,
        )
        stopwatch.new_fold()
        history = model.fit(
            images[train_index],
            labels[train_index],
            batch_size=BATCH_SIZE[options.system],
            epochs=options.epochs,
            validation_data=(images[val_index], labels[val_index]),
            callbacks=[TrainingTime(stopwatch)],
            verbose=2,
        )
        images_trained += len(train_index) * options.epochs
        val_accuracy.append(history.history["val_accuracy"][-1])

    settings = {
        "jit_compile": jit,
        "steps_per_execution": steps,
        "precision": options.dtype,
        "data": "arrays in memory (no loader workers)",
        "threads": len(os.sched_getaffinity(0)),
    }
    packages = ["keras", "tensorflow-cpu", "scikit-learn", "numpy"]
    write_report(options, "keras", stopwatch, images_trained, val_accuracy, packages, settings)


if __name__ == "__main__":
    main()
