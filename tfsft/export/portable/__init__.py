"""What lies beside an exported model: plain Python without tfsft, Keras and TensorFlow.

These files are copied into the folder of an export, where they import each other by their names;
`tfsft.export.portable_folder` says which. The replay of a certificate runs the very same files.
"""
