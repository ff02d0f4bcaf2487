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
  void add(const FilePart& part, const Target& target) {
    parts.push_back(part);
    targets.push_back(target);
  }
};

/// Lists the parts of the file: the tensors to convert, in file order, and what lies between them. Leaves out tensors
/// that overlap or are not contiguous (pickles have them).
FileParts parts_of(const SourceTensors& source, const std::string& path, const std::map<std::string, size_t>& index) {
  std::vector<std::pair<const TensorInfo*, Target>> used;
  const TensorFile* file = nullptr;
  for (const auto& [name, entry] : source.entries()) {
    if (entry.file->path() != path) continue;
    file = entry.file.get();
    const TensorInfo& info = file->tensors().at(entry.name_in_file);
    const auto found = index.find(name);
    if (found == index.end() || !info.strides.empty()) continue;
    used.emplace_back(&info, Target{file->dtype(entry.name_in_file), found->second});
  }
  std::sort(used.begin(), used.end(),
            [](const auto& a, const auto& b) { return a.first->begin_byte < b.first->begin_byte; });
  FileParts result;
  size_t at = 0;
  const auto skip_to = [&](size_t next) {
    if (next > at) result.add({.begin_byte = at, .end_byte = next}, {});
  };
  for (const auto& [info, target] : used) {
    const size_t begin = file->data_begin_byte() + info->begin_byte;
    if (begin < at) continue;
    skip_to(begin);
    at = file->data_begin_byte() + info->end_byte;
    result.add({.begin_byte = begin, .end_byte = at, .unit_bytes = c10::elementSize(target.dtype), .used = true},
               target);
  }
  skip_to(file == nullptr ? static_cast<size_t>(stamp_of(path).size_bytes) : file->size_bytes());
  return result;
}

std::map<std::string, std::string> metadata(const Conversion& conversion, const std::string& hash) {
  std::map<std::string, std::string> entries = cache_metadata(conversion.path_of(hash));
  entries["source_sha256"] = hash;
  entries["note"] = conversion.note;
  return entries;
}

/// Writes the tensors that no part of a file is: padding between the others, and what parts_of leaves out.
void write_made_tensors(SafetensorsWriter& writer, const std::vector<FileParts>& files, size_t tensors) {
  std::vector<bool> streamed(tensors);
  for (const FileParts& file : files) {
    for (const Target& target : file.targets) {
      if (target.index) streamed[*target.index] = true;
    }
  }
  for (size_t index = 0; index < tensors; ++index) {
    if (!streamed[index]) writer.write(index);
  }
}

uint64_t used_bytes(const std::vector<FileParts>& files) {
  uint64_t bytes = 0;
  for (const FileParts& file : files) {
    for (const FilePart& part : file.parts) bytes += part.used ? part.end_byte - part.begin_byte : 0;
  }
  return bytes;
}

std::string convert_file(SafetensorsWriter& writer, const std::string& path, const FileParts& parts, bool hashes,
                         CachePages pages, core::ByteProgress& progress) {
  return read_once(path, parts.parts, hashes, pages, [&](const FilePiece& piece) {
    const Target& target = parts.targets[piece.part];
    const auto width = static_cast<int64_t>(c10::elementSize(target.dtype));
    const at::Tensor values =
        at::from_blob(const_cast<std::byte*>(piece.data), {static_cast<int64_t>(piece.size_bytes) / width},
                      at::TensorOptions().dtype(target.dtype));
    writer.write(*target.index, static_cast<int64_t>(piece.offset_byte) / width, values, path);
    progress.add(piece.size_bytes);
  });
}

}  // namespace

std::string convert(const Conversion& conversion, const SourceTensors& source, const core::Cache& cache) {
  int64_t source_bytes = 0;
  for (const SourceFile& file : conversion.files) source_bytes += file.stamp.size_bytes;
  const CachePages pages = source_bytes < kLargeSourceBytes ? CachePages::kKeep : CachePages::kDrop;
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < conversion.tensors.size(); ++i) index[conversion.tensors[i].name] = i;

  const std::string known = joint_hash(conversion.files);
  const std::string first_name = conversion.path_of(known.empty() ? "unnamed" : known);
  if (fs::exists(fs::path(first_name).parent_path())) core::remove_stale_temporaries(first_name);
  SafetensorsWriter writer(first_name, conversion.tensors, metadata(conversion, std::string(kHashDigits, '-')));
  std::vector<FileParts> parts;
  for (const SourceFile& file : conversion.files) parts.push_back(parts_of(source, file.path, index));
  write_made_tensors(writer, parts, conversion.tensors.size());
  core::ByteProgress progress = cache.begin("converting weights", used_bytes(parts));
  std::vector<SourceFile> files = conversion.files;
  for (size_t i = 0; i < files.size(); ++i) {
    SourceFile& file = files[i];
    const std::string hash = convert_file(writer, file.path, parts[i], file.hash.empty(), pages, progress);
    if (file.hash.empty()) file.hash = hash;
    remember_hash(cache, file.path, file.stamp, file.hash);
  }
  const std::string hash = joint_hash(files);
  std::string path = conversion.path_of(hash);
  if (!known.empty() || !open_cached(cache, path)) writer.publish_as(path, metadata(conversion, hash));
  return path;
}

}  // namespace neoloom::model
