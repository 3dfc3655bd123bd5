"""Runs a command once per name, two at a time, and writes what each used, its children included.

usage: measure.py RESULT.json NAMES.json COMMAND...   (@ in the command stands for the name)
"""
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

result, names, *command = sys.argv[1:]


def measure(name):
    line = [word.replace("@", name) for word in command]
    began = time.monotonic()
    pid = os.posix_spawn(line[0], line, os.environ)
    _, status, used = os.wait4(pid, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "peak_mib": used.ru_maxrss / 1024,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "seconds": time.monotonic() - began,
    }


with open(names) as file:
    names = json.load(file)
with ThreadPoolExecutor(2) as pool:
    measured = dict(zip(names, pool.map(measure, names)))
with open(result, "w") as file:
    json.dump(measured, file)
