// A picture to its label map in C++, with a file that `pixelwise export MODEL --bake --out model.onnx` wrote.
//
//     g++ -std=c++17 -O2 label_map.cpp -I ORT/include -L ORT/lib -lonnxruntime -o label_map
//     ./label_map model.onnx picture.ppm labels.pgm
//
// ORT is the folder of a release of ONNX Runtime. The graph resizes, normalises and decides: what goes in is the picture
// as it is, what comes out are the ids of the classes. A binary PPM is the simplest of pictures; any decoder's RGB will
// do.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    std::int64_t height = 0, width = 0;
    std::vector<std::uint8_t> rgb;  // height * width * 3, row by row
};

Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int largest = 0;
    Picture picture;
    if (!(file >> kind >> picture.width >> picture.height >> largest) || kind != "P6" || largest != 255)
        throw std::runtime_error(path + " is no binary PPM of 8 bits");
    file.get();  // one space after the header
    picture.rgb.assign(std::istreambuf_iterator<char>(file), {});
    if (static_cast<std::int64_t>(picture.rgb.size()) != picture.height * picture.width * 3)
        throw std::runtime_error(path + " is broken off");
    return picture;
}

// The ids of the classes, height * width of them, row by row; bytes, as long as no id is above 255.
std::vector<std::uint8_t> label_map(Ort::Session& session, Picture& picture) {
    const std::array<std::int64_t, 4> shape{1, picture.height, picture.width, 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input = Ort::Value::CreateTensor<std::uint8_t>(
        memory, picture.rgb.data(), picture.rgb.size(), shape.data(), shape.size());
    const char* takes[] = {"picture"};
    const char* gives[] = {"labels"};
    const auto outputs = session.Run(Ort::RunOptions{nullptr}, takes, &input, 1, gives, 1);
    if (outputs[0].GetTensorTypeAndShapeInfo().GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8)
        throw std::runtime_error("this model's ids do not fit into bytes; read them as uint16 or uint32");
    const auto* ids = outputs[0].GetTensorData<std::uint8_t>();
    return {ids, ids + picture.height * picture.width};
}

int main(int count, char** words) try {
    if (count != 4) throw std::runtime_error("usage: label_map MODEL.onnx PICTURE.ppm LABELS.pgm");
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "label_map");
#ifdef _WIN32
    const std::string name(words[1]);
    Ort::Session session(environment, std::wstring(name.begin(), name.end()).c_str(), Ort::SessionOptions{});
#else
    Ort::Session session(environment, words[1], Ort::SessionOptions{});
#endif
    Picture picture = read_ppm(words[2]);
    const auto labels = label_map(session, picture);
    std::ofstream file(words[3], std::ios::binary);
    file << "P5\n" << picture.width << ' ' << picture.height << "\n255\n";
    file.write(reinterpret_cast<const char*>(labels.data()), static_cast<std::streamsize>(labels.size()));
    std::array<std::int64_t, 256> pixels{};
    for (const auto id : labels) ++pixels[id];
    for (int id = 0; id < 256; ++id)
        if (pixels[id] > 0) std::cout << "class " << id << ": " << 100.0 * pixels[id] / labels.size() << " %\n";
} catch (const std::exception& error) {
    std::cerr << "label_map: " << error.what() << '\n';
    return 1;
}
