// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "model/checkpoints/safetensors_header.h"
#include "runtime/core/checksum.h"
#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

at::ScalarType scalar_type(const TensorInfo& info, const std::string& name, const std::string& path) {
  if (info.dtype == "F32") return at::kFloat;
  if (info.dtype == "F16") return at::kHalf;
  if (info.dtype == "BF16") return at::kBFloat16;
  if (info.dtype == "I64") return at::kLong;
  if (info.dtype == "I32") return at::kInt;
  if (info.dtype == "U8") return at::kByte;
  if (info.dtype == "BOOL") return at::kBool;
  core::fail(ErrorKind::kWeights, "{}: tensor '{}' has dtype {}; F32, F16, BF16, I64, I32, U8 and BOOL are read", path,
             name, info.dtype);
}

/// Checks that a cached file is what was written under this name. Throws: Error(kWeights).
void verify_cached(const SafetensorsFile& file) {
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
      core::file_checksum(descriptor.get(), file.size_bytes(), digits_at, file.path(), ErrorKind::kWeights);
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

SafetensorsFile::SafetensorsFile(const std::string& path)
    : path_(path), file_(std::make_shared<core::MappedFile>(path, ErrorKind::kWeights)) {
  SafetensorsHeader header = parse_safetensors_header(file_->text(), path);
  data_begin_ = header.data_begin_byte;
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
}

const TensorInfo& SafetensorsFile::info(const std::string& name) const {
  const auto found = tensors_.find(name);
  core::require(found != tensors_.end(), ErrorKind::kWeights, "{}: there is no tensor '{}'", path_, name);
  return found->second;
}

at::ScalarType SafetensorsFile::dtype(const std::string& name) const { return scalar_type(info(name), name, path_); }

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const TensorInfo& entry = info(name);
  const at::ScalarType dtype = this->dtype(name);
  // The mapping is read-only: a write through the view crashes, which is better than a silent change for all ranks.
  void* data = const_cast<std::byte*>(file_->data() + data_begin_ + entry.begin_byte);
  at::Tensor view = at::from_blob(
      data, entry.shape, [file = file_](void*) {}, at::TensorOptions().dtype(dtype));
  const bool aligned = reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) == 0;
  if (aligned) return view;
  at::Tensor copy = at::empty(entry.shape, at::TensorOptions().dtype(dtype));
  std::memcpy(copy.data_ptr(), data, entry.end_byte - entry.begin_byte);
  return copy;
}

void SafetensorsFile::drop_pages(const std::string& name) const {
  const TensorInfo& entry = info(name);
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (data_begin_ + entry.begin_byte + page - 1) / page * page;
  const size_t end = (data_begin_ + entry.end_byte) / page * page;
  // This is only advice. If it fails, the pages count as memory of the process for longer, nothing else.
  if (begin < end) (void)::madvise(const_cast<std::byte*>(file_->data()) + begin, end - begin, MADV_DONTNEED);
}

std::optional<SafetensorsFile> open_cached(const core::Cache& cache, const std::string& path) {
  std::optional<SafetensorsFile> file;
  const bool usable = cache.use(path, [&] {
    file.emplace(path);
    if (!cache.verified) verify_cached(*file);
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
