// Classifies images with an engine that `resdeploy build` made on this machine; TensorRT 8.5 to 11:
//
//     classify_tensorrt flowers.bundle flowers.bundle/engines/NAME.engine tulip.jpg rose.png
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include "bundle.hpp"

namespace {

class Logger final : public nvinfer1::ILogger {
    void log(Severity severity, const char* text) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << text << '\n';
    }
};

void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

void check(bool done, const char* what) {
    if (!done) throw std::runtime_error(std::string("TensorRT: ") + what + " failed; its reason is above");
}

// Memory of the GPU for float values.
class DeviceFloats {
  public:
    explicit DeviceFloats(std::size_t count) { check(cudaMalloc(&data_, count * sizeof(float))); }
    ~DeviceFloats() { cudaFree(data_); }
    DeviceFloats(const DeviceFloats&) = delete;
    DeviceFloats& operator=(const DeviceFloats&) = delete;
    void* get() const { return data_; }

  private:
    void* data_ = nullptr;
};

void classify(const resdeploy::Bundle& bundle, const std::string& file, const std::vector<std::string>& images) {
    const auto plan = resdeploy::bytes_of(file);
    Logger logger;  // outlives what reports to it
    const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    check(runtime != nullptr, "createInferRuntime");
    const std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    check(engine != nullptr, "reading the engine (built by another TensorRT or for another GPU?)");
    const std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
    check(context != nullptr, "createExecutionContext");

    const std::string input = bundle.manifest.at("input").at("name"), output = bundle.manifest.at("output").at("name");
    const int height = bundle.preprocess.height(), width = bundle.preprocess.width();
    // an engine whose smallest batch is above 1 (--batch 4:8:16) refuses this
    check(context->setInputShape(input.c_str(), nvinfer1::Dims4{1, 3, height, width}), "setting a batch of 1");
    const DeviceFloats pixels(std::size_t(3) * height * width), answer(bundle.labels.size());
    check(context->setTensorAddress(input.c_str(), pixels.get()), "setTensorAddress");
    check(context->setTensorAddress(output.c_str(), answer.get()), "setTensorAddress");
    cudaStream_t stream;
    check(cudaStreamCreate(&stream));
    std::vector<float> logits(bundle.labels.size());
    for (const std::string& path : images) {
        const std::vector<float> host = bundle.preprocess(resdeploy::read_image(path));
        check(cudaMemcpyAsync(pixels.get(), host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice, stream));
        check(context->enqueueV3(stream), "enqueueV3");
        check(cudaMemcpyAsync(logits.data(), answer.get(), logits.size() * sizeof(float), cudaMemcpyDeviceToHost, stream));
        check(cudaStreamSynchronize(stream));
        resdeploy::print_answer(bundle, path, logits);
    }
    cudaStreamDestroy(stream);
}

}  // namespace

int main(int count, char** words) {
    return resdeploy::run(count, words, "BUNDLE ENGINE IMAGE...", classify);
}
