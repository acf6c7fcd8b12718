"""The default values: the commands and the functions they call read them here."""

from typing import Final

from resdeploy.deploy.specs import BatchRange, Precision, RangeSource

# the last operator set that every TensorRT since 8.5 reads
OPSET = 17
EXPORTED_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")

CALIBRATION_IMAGES = 512
RANGE_METHOD = "auto"
RANGE_SOURCE: RangeSource = "auto"
# the TensorRT of JetPack 5, the last that wants a calibration cache
TENSORRT_CACHE_VERSION = "8.5.2"

ENGINE_FLAVOR: Final = "tensorrt"
ENGINE_PRECISION: Precision = "fp16"
ENGINE_BATCH = BatchRange(1, 8, 32)

PREDICTION_BATCH = 8
TOP_CLASSES = 5

BENCH_BATCHES = (1, 8)
BENCH_SECONDS = 3.0

SERVE_HOST = "127.0.0.1"
HTTP_PORT = 8000
GRPC_PORT = 8001
SERVED_BATCH = 8
SERVED_WAIT_MS = 2.0

# points of top-1 a deployment may lose: what MLPerf allows (99 % of float)
MAX_DROP = 1.0
# points one class may lose, beyond doubt: a class has few images, and one of many is always worst
MAX_CLASS_DROP = 10.0
# points by which the expected calibration error may rise, beyond doubt
MAX_CALIBRATION_RISE = 5.0
# points by which the network may be less confident on the images it was calibrated on than on those
# it is verified on, beyond doubt: like sets differ by 1 to 4, other data sets by 7 to 28
MAX_CONFIDENCE_SHORTFALL = 5.0
# dB by which the logits may be noisier than when the variant was made: twice the noise
MAX_SQNR_SHORTFALL_DB = 3.0
# the same on the very inputs and the backend that it was measured with: nothing but damage remains
MAX_REPEATED_SHORTFALL_DB = 1.0

SEED = 0

# a batch of 8 inputs this large already takes 1.6 GB
LARGEST_INPUT_PX = 4096
