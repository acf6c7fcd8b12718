// What both programs share: the bundle's manifest, image files, and an answer as a line of JSON.
#pragma once

#include <png.h>
#include <turbojpeg.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <numeric>

#include "preprocess.hpp"

namespace resdeploy {

inline std::vector<std::uint8_t> bytes_of(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw std::runtime_error(file.string() + ": cannot be read");
    return {std::istreambuf_iterator<char>(stream), {}};
}

struct Bundle {
    std::filesystem::path folder;
    nlohmann::json manifest;
    std::vector<std::string> labels;
    Preprocess preprocess;

    explicit Bundle(const std::filesystem::path& path)
        : folder(path), manifest(nlohmann::json::parse(bytes_of(path / "manifest.json"))),
          labels(manifest.at("labels")), preprocess(manifest.at("preprocess")) {}

    // The ONNX file of a variant: fp32, fp16, int8, int8-fp16 or int8-cpu.
    std::filesystem::path graph(const std::string& variant) const {
        const auto& variants = manifest.at("variants");
        if (!variants.contains(variant))
            throw std::runtime_error(folder.string() + ": no " + variant + " in it");
        return folder / variants.at(variant).at("file").get<std::string>();
    }
};

inline Image read_jpeg(const std::vector<std::uint8_t>& bytes) {
    const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
    int width, height, subsampling, colorspace;
    if (tjDecompressHeader3(decoder.get(), bytes.data(), bytes.size(), &width, &height, &subsampling, &colorspace))
        throw std::runtime_error(tjGetErrorStr2(decoder.get()));
    Image image(width, height);
    if (tjDecompress2(decoder.get(), bytes.data(), bytes.size(), image.rgb.data(), width, 0, height, TJPF_RGB,
                      TJFLAG_ACCURATEDCT))
        throw std::runtime_error(tjGetErrorStr2(decoder.get()));
    return image;
}

inline Image read_png(const std::vector<std::uint8_t>& bytes) {
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) throw std::runtime_error(png.message);
    if (png.format & PNG_FORMAT_FLAG_LINEAR) {
        png_image_free(&png);
        throw std::runtime_error("16 bits a channel, expected 8");
    }
    png.format = PNG_FORMAT_RGBA;  // transparency is left out below, as Pillow's convert("RGB") does
    std::vector<std::uint8_t> rgba(PNG_IMAGE_SIZE(png));
    if (!png_image_finish_read(&png, nullptr, rgba.data(), 0, nullptr)) throw std::runtime_error(png.message);
    Image image(int(png.width), int(png.height));
    for (std::size_t i = 0; i < rgba.size() / 4; ++i) std::copy_n(&rgba[4 * i], 3, &image.rgb[3 * i]);
    return image;
}

// JPEG or PNG, known by the first bytes. A camera's rotation (EXIF) is not applied: training does not.
inline Image read_image(const std::filesystem::path& file) {
    const auto bytes = bytes_of(file);
    try {
        if (bytes.size() > 2 && bytes[0] == 0xFF && bytes[1] == 0xD8) return read_jpeg(bytes);
        if (bytes.size() > 8 && !png_sig_cmp(bytes.data(), 0, 8)) return read_png(bytes);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(file.string() + ": cannot be decoded: " + error.what());
    }
    throw std::runtime_error(file.string() + ": neither JPEG nor PNG");
}

// One line of JSON: the best class with its probability (softmax), and the logits.
inline void print_answer(const Bundle& bundle, const std::string& path, const std::vector<float>& logits) {
    const auto best = std::max_element(logits.begin(), logits.end());
    const double sum = std::accumulate(logits.begin(), logits.end(), 0.0,
                                       [&](double so_far, float logit) { return so_far + std::exp(double(logit) - *best); });
    const auto index = std::size_t(best - logits.begin());
    const nlohmann::json line = {{"path", path}, {"label", bundle.labels.at(index)}, {"index", index},
                                 {"probability", 1 / sum}, {"logits", logits}};
    std::cout << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

// Runs `classify(bundle, second argument, images)`; an error is one line and exit code 1, as in Python.
template <typename Classify>
int run(int count, char** words, const char* usage, Classify classify) {
    if (count < 4) {
        std::cerr << "usage: " << words[0] << ' ' << usage << '\n';
        return 2;
    }
    try {
        classify(Bundle(words[1]), std::string(words[2]), std::vector<std::string>(words + 3, words + count));
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
    return 0;
}

}  // namespace resdeploy
