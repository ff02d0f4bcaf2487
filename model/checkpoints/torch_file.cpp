// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "model/checkpoints/pickle.h"
#include "model/checkpoints/tensor_names.h"
#include "model/checkpoints/zip_members.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

// torch/serialization.py: the pickles of MAGIC_NUMBER and PROTOCOL_VERSION, before those of sys_info and the state
// dict.
constexpr std::string_view kStreamHead =
    "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02\x4d\xe9\x03\x2e";

/// Where each storage's bytes begin in the file.
struct Contents {
  Pickled pickled;
  std::map<std::string, size_t> begin_bytes;
};

/// Returns the size of a storage, or more than any file has.
size_t storage_bytes(const PickledStorage& storage) {
  size_t bytes = 0;
  const size_t width = element_bytes(storage.dtype);
  return __builtin_mul_overflow(static_cast<size_t>(storage.elements), width, &bytes) ? SIZE_MAX : bytes;
}

/// Returns the folder of the archive that holds data.pkl.
std::string archive_folder(const std::map<std::string, ZipMember>& members, const std::string& path) {
  std::string folder;
  for (const auto& [name, member] : members) {
    const size_t slash = name.find('/');
    if (slash == std::string::npos || name.substr(slash) != "/data.pkl") continue;
    core::require(folder.empty(), ErrorKind::kWeights, "{}: the zip archive has two data.pkl", path);
    folder = name.substr(0, slash + 1);
  }
  core::require(!folder.empty(), ErrorKind::kWeights,
                "{}: the zip archive has no FOLDER/data.pkl: torch.save did not write it", path);
  core::require(!members.contains(folder + "constants.pkl"), ErrorKind::kWeights,
                "{}: this is a TorchScript program, not the weights of a model", path);
  return folder;
}

Contents read_archive(std::string_view file, const std::string& path) {
  const std::map<std::string, ZipMember> members = zip_members(file, path);
  const std::string folder = archive_folder(members, path);
  const auto bytes = [&](const ZipMember& member) { return file.substr(member.begin_byte, member.size_bytes); };
  if (const auto order = members.find(folder + "byteorder"); order != members.end()) {
    core::require(bytes(order->second) == "little", ErrorKind::kWeights,
                  "{}: written on a big-endian machine; save it on a little-endian one", path);
  }
  Contents contents;
  contents.pickled = read_pickle(bytes(members.at(folder + "data.pkl")), 0, PickleRoot::kStateDict, path);
  for (const auto& [key, storage] : contents.pickled.storages) {
    const auto member = members.find(fmt::format("{}data/{}", folder, key));
    core::require(member != members.end(), ErrorKind::kWeights, "{}: the storage {} is not in the archive", path,
                  core::quoted(key));
    core::require(member->second.size_bytes == storage_bytes(storage), ErrorKind::kWeights,
                  "{}: the storage {} has {} bytes, expected {} elements of {}", path, core::quoted(key),
                  member->second.size_bytes, storage.elements, storage.dtype);
    contents.begin_bytes[key] = member->second.begin_byte;
  }
  return contents;
}

/// The format before torch 1.6: pickles, the last one a list of keys; then each storage behind its count of elements.
Contents read_stream(std::string_view file, const std::string& path) {
  constexpr size_t kCountBytes = 8;
  Contents contents;
  const size_t begin = read_pickle(file, kStreamHead.size(), PickleRoot::kAnything, path).end_byte;
  contents.pickled = read_pickle(file, begin, PickleRoot::kStateDict, path);
  const Pickled keys = read_pickle(file, contents.pickled.end_byte, PickleRoot::kTexts, path);
  size_t at = keys.end_byte;
  for (const std::string& key : keys.texts) {
    const auto storage = contents.pickled.storages.find(key);
    core::require(storage != contents.pickled.storages.end(), ErrorKind::kWeights,
                  "{}: it holds the storage {}, which no tensor uses", path, core::quoted(key));
    const size_t bytes = storage_bytes(storage->second);
    const bool whole = file.size() - at >= kCountBytes && file.size() - at - kCountBytes >= bytes;
    core::require(whole, ErrorKind::kWeights, "{}: it ends in the storage {}: truncated; fetch it again", path,
                  core::quoted(key));
    int64_t elements = 0;
    std::memcpy(&elements, file.data() + at, kCountBytes);
    core::require(elements == storage->second.elements, ErrorKind::kWeights,
                  "{}: the storage {} has {} elements, its tensors say {}", path, core::quoted(key), elements,
                  storage->second.elements);
    contents.begin_bytes[key] = at + kCountBytes;
    at += kCountBytes + bytes;
  }
  core::require(contents.begin_bytes.size() == contents.pickled.storages.size(), ErrorKind::kWeights,
                "{}: a storage is missing: truncated; fetch it again", path);
  return contents;
}

Contents read_contents(std::string_view file, const std::string& path) {
  if (is_zip(file)) return read_archive(file, path);
  if (file.starts_with(kStreamHead)) return read_stream(file, path);
  core::require(!file.starts_with("version https://git-lfs"), ErrorKind::kWeights,
                "{}: this is Git LFS's pointer to the weights, not the weights: run git lfs pull in its folder", path);
  core::fail(ErrorKind::kWeights, "{}: torch.save did not write this file: it begins as neither of its formats does",
             path);
}

bool is_empty(const PickledTensor& tensor) {
  return std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end();
}

/// Returns how many elements of its storage a tensor spans from its offset on, or nothing beyond 63 bits.
std::optional<int64_t> span_elements(const PickledTensor& tensor) {
  int64_t span = 1, elements = 1;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    const int64_t size = std::max(tensor.shape[i], int64_t{1});
    int64_t step = 0;
    if (__builtin_mul_overflow(elements, size, &elements)) return std::nullopt;
    if (__builtin_mul_overflow(size - 1, tensor.strides[i], &step)) return std::nullopt;
    if (__builtin_add_overflow(span, step, &span)) return std::nullopt;
  }
  return is_empty(tensor) ? 0 : span;
}

bool is_contiguous(const PickledTensor& tensor) {
  int64_t expected = 1;
  if (is_empty(tensor)) return true;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

/// Returns where a tensor lies. Checks that it lies in its storage.
TensorInfo locate(const std::string& name, const PickledTensor& tensor, const Contents& contents,
                  const std::string& path) {
  const PickledStorage& storage = contents.pickled.storages.at(tensor.storage);
  const std::optional<int64_t> span = span_elements(tensor);
  const bool inside =
      span && tensor.offset_elements <= storage.elements && *span <= storage.elements - tensor.offset_elements;
  core::require(inside, ErrorKind::kWeights,
                "{}: tensor '{}' of shape {} at element {} reaches beyond its storage of {} elements", path, name,
                shape_text(tensor.shape), tensor.offset_elements, storage.elements);
  const size_t width = element_bytes(storage.dtype);
  const size_t begin = contents.begin_bytes.at(tensor.storage) + static_cast<size_t>(tensor.offset_elements) * width;
  return {storage.dtype, tensor.shape, is_contiguous(tensor) ? std::vector<int64_t>{} : tensor.strides, begin,
          begin + static_cast<size_t>(*span) * width};
}

}  // namespace

TorchFile::TorchFile(const std::string& path) : TensorFile(path) {
  const Contents contents = read_contents(file_->text(), path);
  for (const auto& [name, tensor] : contents.pickled.tensors) {
    tensors_.emplace(name, locate(name, tensor, contents, path));
  }
}

}  // namespace neoloom::model
