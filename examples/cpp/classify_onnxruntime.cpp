// Classifies images with a bundle's ONNX graph in ONNX Runtime:
//
//     classify_onnxruntime flowers.bundle int8-cpu tulip.jpg rose.png
#include <onnxruntime_cxx_api.h>

#include "bundle.hpp"

namespace {

void classify(const resdeploy::Bundle& bundle, const std::string& variant, const std::vector<std::string>& images) {
    Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "resdeploy");
    // another execution provider, such as CUDA, is appended to these options
    Ort::Session session(env, bundle.graph(variant).c_str(), Ort::SessionOptions());
    const std::string input_name = bundle.manifest.at("input").at("name");
    const std::string output_name = bundle.manifest.at("output").at("name");
    const char* inputs[] = {input_name.c_str()};
    const char* outputs[] = {output_name.c_str()};
    const std::array<std::int64_t, 4> shape{1, 3, bundle.preprocess.height(), bundle.preprocess.width()};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    for (const std::string& path : images) {
        std::vector<float> pixels = bundle.preprocess(resdeploy::read_image(path));
        const auto tensor =
            Ort::Value::CreateTensor<float>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
        const auto results = session.Run(Ort::RunOptions(), inputs, &tensor, 1, outputs, 1);
        const float* first = results[0].GetTensorData<float>();
        const auto classes = results[0].GetTensorTypeAndShapeInfo().GetElementCount();
        resdeploy::print_answer(bundle, path, std::vector<float>(first, first + classes));
    }
}

}  // namespace

int main(int count, char** words) {
    return resdeploy::run(count, words, "BUNDLE VARIANT IMAGE...", classify);
}
