"""What keeps a data set from working in parallel where operations are to be deterministic."""

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework import op_def_registry

SOURCES = {"TensorSliceDataset", "RangeDataset"}  # TensorFlow knows that their state is no matter
CALLS = {"PartitionedCall", "StatefulPartitionedCall", "If"}  # of other functions


def stateful_operations(dataset: tf.data.Dataset) -> set[str]:
    """Returns the operations with a state inside of the functions that a data set calls; and sees
    that nothing tunes its buffers, which may hold up the end of an iterator for a minute.
    """
    assert dataset.options().autotune.enabled is False
    serialized = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor, external_state_policy=1
    )
    graph = graph_pb2.GraphDef.FromString(serialized.numpy())
    assert graph.library.function
    used = {node.op for function in graph.library.function for node in function.node_def}
    known = {name: op_def_registry.get(name) for name in used - SOURCES - CALLS}
    return {name for name, operation in known.items() if operation and operation.is_stateful}
