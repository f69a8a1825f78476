"""A confusion matrix counted while a model trains and is validated."""

import keras
import tensorflow as tf


class ConfusionMatrix(keras.metrics.Metric):
    """Counts (true class, predicted class) pairs; its result is the balanced accuracy, the mean
    recall of classes.

    Args:
        num_classes: Size of the matrix.
        name: Name of the result in the logs.
    """

    def __init__(self, num_classes: int, name: str = "balanced_accuracy"):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.matrix = self.add_variable((num_classes, num_classes), "zeros", name="matrix")

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:  # noqa: ANN001
        """Adds a batch.

        Args:
            y_true: One-hot or mixed targets, `[batch, num_classes]`.
            y_pred: Scores, `[batch, num_classes]`.
            sample_weight: `[batch]`; what is above zero counts once.
        """
        counts = tf.ones(tf.shape(y_true)[0]) if sample_weight is None else sample_weight
        counts = tf.cast(tf.cast(counts, "float32") > 0, "float32")
        truth, answers = tf.argmax(y_true, -1), tf.argmax(y_pred, -1)
        # The result is a share of examples, not of class weights: filler alone is left out.
        self.matrix.assign_add(
            tf.math.confusion_matrix(truth, answers, self.num_classes, counts, tf.float32)
        )

    def result(self) -> tf.Tensor:
        """Mean recall over the classes seen."""
        matrix = tf.convert_to_tensor(self.matrix)
        seen = tf.reduce_sum(matrix, 1)
        recall = tf.math.divide_no_nan(tf.linalg.diag_part(matrix), seen)
        return tf.math.divide_no_nan(
            tf.reduce_sum(recall), tf.reduce_sum(tf.cast(seen > 0, "float32"))
        )
