"""What a model of classes or of numbers says: pip install numpy"""


def named(output, class_names, labels):
    """Returns the answer of one example, of its output `[classes]`."""
    if labels == "regression":
        return {"value": float(output[0])}
    found = {"probabilities": dict(zip(class_names, map(float, output), strict=True))}
    if labels == "single":
        found["label"] = class_names[int(output.argmax())]
    return found
