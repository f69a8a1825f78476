"""TensorFlow's start-up noise is dropped; every other line and a crash's last words are not."""

import os
import signal
import subprocess
import sys

NOISE = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795368072.140152    6801 cudart_stub.cc:31] Could not find cuda drivers
W0000 00:00:1795368072.140152    6801 computation_placer.cc:177] computation placer already
E0000 00:00:1795368072.140152    6801 cuda_fft.cc:477] Unable to register cuFFT factory
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow
"""
REAL = """F0000 00:00:1795368072.140152    6801 cpu_feature_guard.cc:1] Illegal instruction
E0000 00:00:1795368072.140152    6801 loader.cc:1] libstdc++.so.6: version not found
Illustrious: a line that begins like noise
"""


def run(code, **environment):
    head = "import os, sys\nfrom tfsft.cli.tensorflow_start import starting_tensorflow\n"
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"} | environment
    return subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, env=environment
    )


def test_only_noise_is_dropped():
    code = (
        "with starting_tensorflow():\n"
        f"    os.write(2, {NOISE + REAL!r}.encode())\n"
        "    print('from python', file=sys.stderr)\n"
        "os.write(2, b'I0000 00:00:1 afterwards')"
    )
    assert run(code).stderr == REAL + "from python\nI0000 00:00:1 afterwards"


def test_nothing_is_dropped_with_debug():
    code = f"with starting_tensorflow(debug=True):\n    os.write(2, {NOISE!r}.encode())\n"
    assert run(code).stderr == NOISE


def test_the_last_words_of_a_crash_are_shown():
    code = f"with starting_tensorflow():\n    os.write(2, {NOISE + REAL!r}.encode()); os.abort()\n"
    done = run(code)
    assert done.returncode == -signal.SIGABRT
    assert done.stderr == REAL


def test_an_exception_passes_through():
    code = "with starting_tensorflow():\n    raise ImportError('no such library')\n"
    assert run(code).stderr.endswith("ImportError: no such library\n")


def test_tensorflow_starts_in_silence():
    code = (
        "with starting_tensorflow():\n    import tensorflow as tf\n"
        "tf.constant(1) + 1\ntf.config.list_logical_devices()\nprint('done')"
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("done\n", "")
