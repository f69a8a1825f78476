"""python example.py INPUT...: a picture, a text, or question and context, for each answer."""

import json
import sys

from reading import answer, task, width
from runtime import run

for place in range(1, len(sys.argv), width):
    print(json.dumps(answer(run, *sys.argv[place : place + width], **task), ensure_ascii=False))
