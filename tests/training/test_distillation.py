"""The loss of a student against NumPy, and how FineTuner trains with it."""

import json

import keras
import numpy as np
import pytest
import small_run
import tensorflow as tf

from tfsft import training
from tfsft.errors import UserError

RANDOM = np.random.default_rng(5)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.fixture
def case():
    logits, teacher = RANDOM.normal(0, 3, (2, 7, 4))
    labels = np.eye(4)[RANDOM.integers(0, 4, 7)]
    return logits, teacher, labels


def loss_of(temperature, alpha, smoothing=0.0):
    hard = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    return training.Distillation(hard, temperature, alpha)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (4.0, 0.3), (0.5, 1.0), (2.0, 0.0)])
def test_the_loss_is_that_of_numpy_on_logits(case, temperature, alpha):
    logits, teacher, labels = case
    smooth = labels * 0.8 + 0.2 / 4
    hard = -(smooth * np.log(softmax(logits))).sum(-1)
    soft_teacher, soft_student = softmax(teacher / temperature), softmax(logits / temperature)
    soft = (soft_teacher * np.log(soft_teacher / soft_student)).sum(-1)
    expected = (1 - alpha) * hard + alpha * temperature**2 * soft
    targets = np.concatenate([labels, softmax(teacher)], -1).astype("float32")
    found = loss_of(temperature, alpha, 0.2).call(
        tf.constant(targets), tf.constant(softmax(logits), tf.float32)
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_the_gradient_of_the_logits_is_that_of_the_paper(case):
    """T (p_T - q_T) for the teacher's part: as large at every temperature."""
    logits, teacher, labels = case
    x = tf.constant(logits, tf.float32)
    targets = np.concatenate([labels, softmax(teacher)], -1).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(loss_of(3.0, 1.0).call(tf.constant(targets), tf.nn.softmax(x)))
    expected = 3 * (softmax(logits / 3) - softmax(teacher / 3))
    np.testing.assert_allclose(tape.gradient(loss, x), expected, rtol=1e-4, atol=1e-5)


def test_certain_answers_give_numbers():
    targets = tf.constant([[1.0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1]])
    certain = tf.constant([[1.0, 0, 0], [1, 0, 0]])
    found = loss_of(2.0, 0.5).call(targets, certain).numpy()
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(found).all()


def test_without_a_teacher_the_loss_is_that_of_the_labels(case):
    logits, _, labels = case
    found = loss_of(2.0, 0.9).call(
        tf.constant(labels, tf.float32), tf.constant(softmax(logits), tf.float32)
    )
    np.testing.assert_allclose(found, -(labels * np.log(softmax(logits))).sum(-1), rtol=1e-5)


def train(accumulate):
    """An epoch with uneven batches; returns the weights and the last accuracies."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((small_run.WIDTH,)), keras.layers.Dense(small_run.CLASSES, "softmax")]
    )
    train = small_run.pipeline(False)
    teacher = np.random.default_rng(1).dirichlet(np.ones(3), small_run.SIZE)
    labels = np.eye(3)[train.labels]
    taught = train.with_labels(np.concatenate([labels, teacher], -1).astype("float32"))
    tuner = training.FineTuner(model, accumulate=accumulate)
    tuner.compile(
        "sgd", loss_of(2.0, 0.5), weighted_metrics=["categorical_accuracy"], run_eagerly=True
    )
    history = tuner.fit(taught, validation_data=train, epochs=1)
    rows = np.concatenate([x for x, _, _ in train.in_order().epoch()])[: small_run.SIZE]
    right = (model.predict(rows, verbose=0).argmax(-1) == train.labels).mean()
    return [np.asarray(w) for w in model.weights], history.history, right


def test_finetuner_is_exact_with_it_and_measures_by_the_labels():
    whole, history, right = train(1)
    parts, _, _ = train(4)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert history["val_categorical_accuracy"][-1] == pytest.approx(right)
    assert 0 < history["categorical_accuracy"][-1] <= 1


def network(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((small_run.WIDTH,)),
            keras.layers.Dense(8, "tanh", kernel_initializer="random_normal", name="hidden"),
            keras.layers.Dense(small_run.CLASSES, "softmax", name="predictions"),
        ]
    )


def test_a_student_of_a_saved_model_answers_more_like_it_than_one_without(tmp_path):
    """The teacher is random, so that the labels say nothing of its answers."""
    task = {"task": "image_classification", "labels": "single", "class_names": ["a", "b", "c"]}
    (tmp_path / "task.json").write_text(json.dumps(task))
    (tmp_path / "config.json").write_text("{}")
    network(1).save(tmp_path / "model.keras")
    train = small_run.pipeline(False)
    teacher = training.Teacher(tmp_path, "image_classification", "single")
    with training.Run("small", small_run.Config(), run_dir=tmp_path / "run") as run:
        taught = teacher.teach(run, train, train, ["a", "b", "c"])
        with pytest.raises(UserError, match=r"are not those of .*: c, d"):
            teacher.teach(run, train, train, ["a", "b", "d"])
    inputs = np.concatenate([x for x, _, _ in train.in_order().epoch()])[: small_run.SIZE]
    expected = keras.models.load_model(tmp_path / "model.keras").predict(inputs, verbose=0)
    np.testing.assert_allclose(taught.labels[:, 3:], expected, atol=1e-6)
    np.testing.assert_array_equal(taught.labels[:, :3].argmax(-1), train.labels)

    divergences = []
    for batches in (taught, train):
        student = network(2)
        tuner = training.FineTuner(student)
        tuner.compile(keras.optimizers.Adam(0.05), loss_of(2.0, 0.9))
        tuner.fit(batches, epochs=20)
        found = student.predict(inputs, verbose=0)
        divergences.append((expected * np.log(expected / found)).sum(-1).mean())
    assert divergences[0] < 0.2 * divergences[1]


def test_a_batch_keeps_its_inputs_with_other_targets():
    plain = small_run.pipeline(True)
    other = plain.with_labels(np.arange(small_run.SIZE, dtype="float32")[:, None])
    for (x, y, w), (x2, y2, w2) in zip(plain.epoch(1), other.epoch(1), strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(w, w2)
        np.testing.assert_array_equal(
            y.numpy().argmax(-1), plain.labels[y2.numpy().astype(int)[:, 0]]
        )
