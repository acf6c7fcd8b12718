"""Runs in tritonclient's environment: prints every config.pbtxt of a repository as JSON.

The real ModelConfig protobuf reads them, so that a wrong name or type ends it.

    python model_configs.py REPOSITORY
"""

import json
import sys
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig


def main() -> None:
    configs = {}
    for file in sorted(Path(sys.argv[1]).glob("*/config.pbtxt")):
        config = text_format.Parse(file.read_text(), ModelConfig())
        configs[file.parent.name] = json_format.MessageToDict(
            config, preserving_proto_field_name=True
        )
    print(json.dumps(configs))


if __name__ == "__main__":
    main()
