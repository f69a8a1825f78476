"""TODO."""
def main():
    pass
