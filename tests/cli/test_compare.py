"""`tfsft compare` as a person types it."""


def test_a_wrong_folder_costs_one_message(tfsft):
    done = tfsft("compare", "runs/a", "runs/b")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: runs/a is not the folder of a run.")
    assert "Traceback" not in done.stderr
