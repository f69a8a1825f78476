"""Two workers that are started as a cluster manager would, by TF_CONFIG."""

import json
import os
import socket
import subprocess


def start_workers(command, **environment):
    """Returns the two processes of a command; what they say is to be read from them."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()

    def start(index):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        return subprocess.Popen(
            command,
            env=os.environ | environment | {"TF_CONFIG": config},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return [start(0), start(1)]
