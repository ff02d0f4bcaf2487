// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/safetensors.h"

#include <ATen/ops/equal.h>

#include <filesystem>

#include "model/checkpoints/safetensors_header.h"
#include "runtime/core/checksum.h"
#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

/// Checks that a cached file is what was written under this name. Throws: Error(kWeights).
void verify_cached(const SafetensorsFile& file, const core::Cache& cache) {
  const auto metadata = [&](const char* key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  const std::string expected = metadata(kChecksumKey);
  core::require(expected.size() == core::kChecksumDigits, ErrorKind::kWeights,
                "it has no checksum (older versions wrote none)");
  const size_t digits_at = checksum_offset(file.head());
  core::require(digits_at != std::string::npos, ErrorKind::kWeights, "its checksum is not where it belongs");
  const core::UniqueFd descriptor = core::open_regular(file.path(), ErrorKind::kWeights);
  const std::string found =
      core::file_checksum(descriptor.get(), file.size_bytes(), digits_at, file.path(), ErrorKind::kWeights,
                          cache.begin("verifying cached weights", file.size_bytes()));
  core::require(found == expected, ErrorKind::kWeights, "it was changed: its checksum is {}, expected {}", found,
                expected);
  const std::string name = std::filesystem::path(file.path()).filename().string();
  core::require(metadata(kNameKey) == name, ErrorKind::kWeights, "it was made as {}", metadata(kNameKey));
}

}  // namespace

std::map<std::string, std::string> cache_metadata(const std::string& path) {
  return {{kChecksumKey, std::string(core::kChecksumDigits, '-')},
          {kNameKey, std::filesystem::path(path).filename().string()}};
}

size_t checksum_offset(std::string_view head) {
  const std::string before = fmt::format("\"{}\":\"", kChecksumKey);
  const size_t at = head.find(before);
  return at == std::string_view::npos ? at : at + before.size();
}

SafetensorsFile::SafetensorsFile(const std::string& path) : TensorFile(path) {
  SafetensorsHeader header = parse_safetensors_header(file_->text(), path);
  data_begin_ = header.data_begin_byte;
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
}

std::optional<SafetensorsFile> open_cached(const core::Cache& cache, const std::string& path) {
  std::optional<SafetensorsFile> file;
  const bool usable = cache.use(path, [&] {
    file.emplace(path);
    if (!cache.verified) verify_cached(*file, cache);
  });
  if (!usable) file.reset();
  return file;
}

bool holds(const SafetensorsFile& file, const std::vector<TensorToWrite>& tensors) {
  for (const TensorToWrite& tensor : tensors) {
    if (!file.tensors().contains(tensor.name)) return false;
    const at::Tensor stored = file.tensor(tensor.name);
    const bool equal = stored.scalar_type() == tensor.dtype && stored.sizes() == at::IntArrayRef(tensor.shape) &&
                       at::equal(stored, tensor.value().to(tensor.dtype));
    if (!equal) return false;
    file.drop_pages(tensor.name);
    if (tensor.after_writing) tensor.after_writing();
  }
  return true;
}

}  // namespace neoloom::model
