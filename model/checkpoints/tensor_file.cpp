// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/tensor_file.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

at::ScalarType scalar_type(const TensorInfo& info, const std::string& name, const std::string& path) {
  if (info.dtype == "F32") return at::kFloat;
  if (info.dtype == "F16") return at::kHalf;
  if (info.dtype == "BF16") return at::kBFloat16;
  if (info.dtype == "F64") return at::kDouble;
  if (info.dtype == "I64") return at::kLong;
  if (info.dtype == "I32") return at::kInt;
  if (info.dtype == "U8") return at::kByte;
  if (info.dtype == "BOOL") return at::kBool;
  core::fail(ErrorKind::kWeights, "{}: tensor '{}' has dtype {}; F64, F32, F16, BF16, I64, I32, U8 and BOOL are read",
             path, name, info.dtype);
}

}  // namespace

size_t element_bytes(const std::string& dtype) {
  static constexpr std::pair<const char*, size_t> kSizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
      {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}, {"C64", 8}};
  for (const auto& [name, size] : kSizes) {
    if (dtype == name) return size;
  }
  return 0;
}

TensorFile::TensorFile(const std::string& path)
    : path_(path), file_(std::make_shared<core::MappedFile>(path, ErrorKind::kWeights)) {}

const TensorInfo& TensorFile::info(const std::string& name) const {
  const auto found = tensors_.find(name);
  core::require(found != tensors_.end(), ErrorKind::kWeights, "{}: there is no tensor '{}'", path_, name);
  return found->second;
}

at::ScalarType TensorFile::dtype(const std::string& name) const { return scalar_type(info(name), name, path_); }

at::Tensor TensorFile::tensor(const std::string& name) const {
  const TensorInfo& entry = info(name);
  const auto options = at::TensorOptions().dtype(this->dtype(name));
  const auto view = [&](void* data, const std::function<void(void*)>& keep) {
    return entry.strides.empty() ? at::from_blob(data, entry.shape, keep, options)
                                 : at::from_blob(data, entry.shape, entry.strides, keep, options);
  };
  // The mapping is read-only: a write through the view crashes, which is better than a silent change for all ranks.
  void* data = const_cast<std::byte*>(file_->data() + data_begin_ + entry.begin_byte);
  const bool aligned = reinterpret_cast<uintptr_t>(data) % options.dtype().itemsize() == 0;
  if (aligned) return view(data, [file = file_](void*) {});
  const at::Tensor copy = at::empty({static_cast<int64_t>(entry.end_byte - entry.begin_byte)}, at::kByte);
  std::memcpy(copy.mutable_data_ptr(), data, entry.end_byte - entry.begin_byte);
  return view(copy.mutable_data_ptr(), [copy](void*) {});
}

void TensorFile::drop_pages(const std::string& name) const {
  const TensorInfo& entry = info(name);
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (data_begin_ + entry.begin_byte + page - 1) / page * page;
  const size_t end = (data_begin_ + entry.end_byte) / page * page;
  // This is only advice. If it fails, the pages count as memory of the process for longer, nothing else.
  if (begin < end) (void)::madvise(const_cast<std::byte*>(file_->data()) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace neoloom::model
