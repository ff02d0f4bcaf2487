// SPDX-License-Identifier: Apache-2.0
#include "model/weight_cache/conversion.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include "model/weight_cache/read_once.h"
#include "runtime/core/atomic_file.h"

namespace neoloom::model {

namespace {

namespace fs = std::filesystem;

// The pages of larger sources are dropped from the system's cache: they would push everything else out of it, and
// nobody reads them again.
constexpr int64_t kLargeSourceBytes = int64_t{2} << 30;
constexpr size_t kHashDigits = 64;

/// Says where a part of a source file goes.
struct Target {
  at::ScalarType dtype = at::kFloat;  // as stored
  std::optional<size_t> index;        // into the list of tensors; none: only hashed
};

struct FileParts {
  std::vector<FilePart> parts;
  std::vector<Target> targets;  // of each part
};

/// Lists the parts of the file: its header, then its tensors in file order.
FileParts parts_of(const SourceTensors& source, const std::string& path, const std::map<std::string, size_t>& index) {
  std::vector<std::pair<const TensorInfo*, Target>> stored;
  const SafetensorsFile* file = nullptr;
  for (const auto& [name, entry] : source.entries()) {
    if (entry.file->path() != path) continue;
    file = entry.file.get();
    const auto found = index.find(name);
    Target target;
    if (found != index.end()) target = {file->dtype(entry.name_in_file), found->second};
    stored.emplace_back(&file->tensors().at(entry.name_in_file), target);
  }
  std::sort(stored.begin(), stored.end(),
            [](const auto& a, const auto& b) { return a.first->begin_byte < b.first->begin_byte; });
  FileParts result;
  const size_t begin = file == nullptr ? 0 : file->data_begin_byte();
  result.parts.push_back({.begin_byte = 0, .end_byte = begin});
  result.targets.emplace_back();
  for (const auto& [info, target] : stored) {
    result.parts.push_back({.begin_byte = begin + info->begin_byte,
                            .end_byte = begin + info->end_byte,
                            .unit_bytes = c10::elementSize(target.dtype),
                            .used = target.index.has_value()});
    result.targets.push_back(target);
  }
  return result;
}

std::map<std::string, std::string> metadata(const Conversion& conversion, const std::string& hash) {
  std::map<std::string, std::string> entries = cache_metadata(conversion.path_of(hash));
  entries["source_sha256"] = hash;
  entries["note"] = conversion.note;
  return entries;
}

/// Writes tensors that are in no source file, such as the padding between the others.
void write_made_tensors(SafetensorsWriter& writer, const SourceTensors& source,
                        const std::vector<TensorToWrite>& tensors) {
  for (size_t index = 0; index < tensors.size(); ++index) {
    if (source.find(tensors[index].name) == nullptr) writer.write(index);
  }
}

std::string convert_file(SafetensorsWriter& writer, const std::string& path, const FileParts& parts, bool hashes,
                         CachePages pages) {
  return read_once(path, parts.parts, hashes, pages, [&](const FilePiece& piece) {
    const Target& target = parts.targets[piece.part];
    const auto width = static_cast<int64_t>(c10::elementSize(target.dtype));
    const at::Tensor values =
        at::from_blob(const_cast<std::byte*>(piece.data), {static_cast<int64_t>(piece.size_bytes) / width},
                      at::TensorOptions().dtype(target.dtype));
    writer.write(*target.index, static_cast<int64_t>(piece.offset_byte) / width, values, path);
  });
}

}  // namespace

std::string convert(const Conversion& conversion, const SourceTensors& source, const core::Cache& cache) {
  int64_t source_bytes = 0;
  std::vector<std::string> hashes;
  for (const SourceFile& file : conversion.files) {
    source_bytes += file.stamp.size_bytes;
    hashes.push_back(file.hash);
  }
  const CachePages pages = source_bytes < kLargeSourceBytes ? CachePages::kKeep : CachePages::kDrop;
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < conversion.tensors.size(); ++i) index[conversion.tensors[i].name] = i;

  const std::string known = joint_hash(hashes);
  const std::string first_name = conversion.path_of(known.empty() ? "unnamed" : known);
  if (fs::exists(fs::path(first_name).parent_path())) core::remove_stale_temporaries(first_name);
  SafetensorsWriter writer(first_name, conversion.tensors, metadata(conversion, std::string(kHashDigits, '-')));
  write_made_tensors(writer, source, conversion.tensors);
  for (size_t i = 0; i < conversion.files.size(); ++i) {
    const SourceFile& file = conversion.files[i];
    const FileParts parts = parts_of(source, file.path, index);
    const std::string hash = convert_file(writer, file.path, parts, file.hash.empty(), pages);
    if (file.hash.empty()) hashes[i] = hash;
    remember_hash(cache, file.path, file.stamp, hashes[i]);
  }
  const std::string hash = joint_hash(hashes);
  std::string path = conversion.path_of(hash);
  if (!known.empty() || !open_cached(cache, path)) writer.publish_as(path, metadata(conversion, hash));
  return path;
}

}  // namespace neoloom::model
