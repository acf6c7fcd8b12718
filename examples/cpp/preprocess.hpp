// Turns an RGB image into the network's input, as the manifest says: the same numbers as in Python.
//
//     image --resize--> --centre crop--> x = (v / 255 - mean) / std, (3, H, W) float
//
// The resize is the antialiased one of Pillow, with which torchvision trains: the filter is as wide as
// the pixels it averages, weights are whole numbers of 2^-22, and the image between the horizontal and
// the vertical pass is rounded to bytes. OpenCV's INTER_LINEAR and the resize of GPUs skip pixels
// instead; they cost accuracy that no error message tells of.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace resdeploy {

// Rows from top to bottom, pixels as bytes R G B without gaps. A frame of OpenCV is B G R: swap it first.
struct Image {
    int width = 0, height = 0;
    std::vector<std::uint8_t> rgb;

    Image() = default;
    Image(int width_px, int height_px)
        : width(width_px), height(height_px), rgb(std::size_t(3) * width_px * height_px) {}  // black
    std::uint8_t* row(int y) { return rgb.data() + std::size_t(3) * width * y; }
    const std::uint8_t* row(int y) const { return rgb.data() + std::size_t(3) * width * y; }
};

// A filter of the resize: its weight at a distance in pixels of the result, 0 from `reach` on.
struct Filter {
    double reach;
    double (*weight)(double);
};

inline Filter filter_called(const std::string& name) {
    if (name == "bilinear") return {1.0, [](double x) { return std::max(0.0, 1.0 - std::abs(x)); }};
    if (name == "bicubic") return {2.0, [](double x) {  // Keys 1981 with a = -1/2
        x = std::abs(x);
        if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
        return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0.0;
    }};
    throw std::runtime_error("interpolation '" + name + "': this sample has bilinear and bicubic");
}

// What one pixel of the result takes from a row or column: its first source pixel, and the weights.
struct Window {
    int first;
    std::vector<std::int64_t> weights;  // in units of 2^-22
};

constexpr int WEIGHT_BITS = 22;

inline std::vector<Window> windows(int from_px, int to_px, const Filter& filter) {
    const double scale = double(from_px) / to_px, stretch = std::max(scale, 1.0);
    const double reach = filter.reach * stretch;
    std::vector<Window> result;
    for (int x = 0; x < to_px; ++x) {
        const double centre = (x + 0.5) * scale;
        const int first = std::max(int(centre - reach + 0.5), 0);
        const int end = std::min(int(centre + reach + 0.5), from_px);
        std::vector<double> weights;
        double sum = 0;
        for (int source = first; source < end; ++source) {
            weights.push_back(filter.weight((source - centre + 0.5) / stretch));
            sum += weights.back();
        }
        Window window{first, {}};
        for (double weight : weights)
            window.weights.push_back(std::int64_t(std::round(weight / sum * (1 << WEIGHT_BITS))));
        result.push_back(std::move(window));
    }
    return result;
}

// The weighted sum of bytes that lie `stride` apart, rounded to a byte.
inline std::uint8_t average(const std::uint8_t* first, std::size_t stride, const Window& window) {
    std::int64_t sum = 1 << (WEIGHT_BITS - 1);
    for (std::int64_t weight : window.weights) {
        sum += weight * *first;
        first += stride;
    }
    return std::uint8_t(std::clamp<std::int64_t>(sum >> WEIGHT_BITS, 0, 255));
}

inline Image resized(const Image& image, int width, int height, const Filter& filter) {
    Image wide = image;
    if (width != image.width) {
        const auto columns = windows(image.width, width, filter);
        wide = Image(width, image.height);
        for (int y = 0; y < wide.height; ++y)
            for (int x = 0; x < width; ++x)
                for (int c = 0; c < 3; ++c)
                    wide.row(y)[3 * x + c] = average(image.row(y) + 3 * columns[x].first + c, 3, columns[x]);
    }
    if (height == image.height) return wide;
    const auto rows = windows(image.height, height, filter);
    Image result(width, height);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < 3 * width; ++x)
            result.row(y)[x] = average(wide.row(rows[y].first) + x, std::size_t(3) * width, rows[y]);
    return result;
}

// The middle of the image; where it is smaller than the crop, black is added around it.
inline Image cropped(const Image& image, int width, int height) {
    Image padded = image;
    if (width > image.width || height > image.height) {
        padded = Image(std::max(width, image.width), std::max(height, image.height));
        const int left = (padded.width - image.width) / 2, top = (padded.height - image.height) / 2;
        for (int y = 0; y < image.height; ++y)
            std::memcpy(padded.row(top + y) + 3 * left, image.row(y), std::size_t(3) * image.width);
    }
    // halves go to the even number, as Python rounds
    const int left = int(std::nearbyint((padded.width - width) / 2.0));
    const int top = int(std::nearbyint((padded.height - height) / 2.0));
    Image result(width, height);
    for (int y = 0; y < height; ++y)
        std::memcpy(result.row(y), padded.row(top + y) + 3 * left, std::size_t(3) * width);
    return result;
}

// `preprocess` of manifest.json.
class Preprocess {
  public:
    explicit Preprocess(const nlohmann::json& fields)
        : resize_(fields.at("resize_px")), crop_(fields.at("crop_px")),
          mean_(fields.at("mean").get<std::array<float, 3>>()),
          std_(fields.at("std").get<std::array<float, 3>>()),
          filter_(filter_called(fields.value("interpolation", "bilinear"))) {
        const auto& size = crop_.is_null() ? resize_ : crop_;
        height_ = size.at(0), width_ = size.at(1);
    }

    int height() const { return height_; }
    int width() const { return width_; }

    // (3, H, W) float32, channel after channel.
    std::vector<float> operator()(const Image& source) const {
        Image image = resized_as_told(source);
        if (!crop_.is_null()) image = cropped(image, width_, height_);
        if (image.width != width_ || image.height != height_)
            throw std::runtime_error("image is " + std::to_string(image.width) + "x" + std::to_string(image.height) +
                                     ", expected " + std::to_string(width_) + "x" + std::to_string(height_));
        std::vector<float> input(image.rgb.size());
        const std::size_t pixels = input.size() / 3;
        for (int c = 0; c < 3; ++c)
            for (std::size_t i = 0; i < pixels; ++i)
                input[c * pixels + i] = (image.rgb[3 * i + c] / 255.0f - mean_[c]) / std_[c];
        return input;
    }

  private:
    nlohmann::json resize_, crop_;  // shorter side, [H, W] or null; [H, W] or null
    std::array<float, 3> mean_, std_;
    Filter filter_;
    int height_, width_;

    Image resized_as_told(const Image& image) const {
        if (resize_.is_null()) return image;
        if (resize_.is_array()) return resized(image, resize_.at(1), resize_.at(0), filter_);
        const int px = resize_;  // of the shorter side; the longer one is rounded down
        const bool upright = image.width <= image.height;
        const int longer = int(double(px) * std::max(image.width, image.height) / std::min(image.width, image.height));
        return upright ? resized(image, px, longer, filter_) : resized(image, longer, px, filter_);
    }
};

}  // namespace resdeploy
