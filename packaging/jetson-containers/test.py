#!/usr/bin/env python3
"""What jetson-containers runs in the image it built: the command works and TensorRT is found."""

import json
import subprocess

found = json.loads(subprocess.check_output(["resdeploy", "doctor", "--json"]))
print(json.dumps(found, indent=1))
tensorrt = found["backends"]["tensorrt"]
assert tensorrt["usable"], tensorrt
print("resdeploy: TensorRT is usable")
