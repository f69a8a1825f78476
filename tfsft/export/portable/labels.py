"""What a model of classes or of numbers says: pip install numpy"""


def named(output, class_names, labels):
    """Returns the answer of one example, of its output `[classes]`."""
    if labels == "regression":
        return {"value": float(output[0])}
    found = {"probabilities": dict(zip(class_names, map(float, output), strict=True))}
    if labels == "single":
        found["label"] = class_names[int(output.argmax())]
    return found


def scores(found):
    """Returns the output of one example, `[classes]`, of what a SavedModel says, by name."""
    return found["probabilities" if "probabilities" in found else "value"].reshape(-1)
