// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "data/store/store_file.h"
#include "runtime/core/atomic_file.h"
#include "runtime/core/checksum.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/unnamed_file.h"
#include "runtime/hdf5/handles.h"
#include "runtime/hdf5/objects.h"
#include "runtime/hdf5/types.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using hdf5::Dataset;
using hdf5::Dataspace;
using hdf5::Element;
using hdf5::PropertyList;

constexpr ErrorKind kKind = ErrorKind::kData;
constexpr size_t kPieceTokens = size_t{1} << 20;
constexpr hsize_t kAlignmentBytes = 64;

/// Appends the line with the checksum.
void append_checksum(core::AtomicFile& file) {
  const size_t size_bytes = file.size_bytes();
  std::string line = fmt::format("{}{:-<{}}", kChecksumLine, "", core::kChecksumDigits);
  line.resize(kChecksumLineBytes - 1, ' ');
  line += '\n';
  file.write_at(size_bytes, line.data(), line.size());
  line.replace(kChecksumLine.size(), core::kChecksumDigits,
               file.checksum(size_bytes + line.size(), size_bytes + kChecksumLine.size()));
  file.write_at(size_bytes, line.data(), line.size());
}

hdf5::File create_file(const std::string& path) {
  const PropertyList access(NL_H5(kKind, H5Pcreate(H5P_FILE_ACCESS)));
  NL_H5(kKind, H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V110));
  NL_H5(kKind, H5Pset_alignment(access.get(), 1, kAlignmentBytes));
#if H5_VERSION_GE(1, 10, 7)
  NL_H5(kKind, H5Pset_file_locking(access.get(), false, true));  // no lock: only this process knows the name
#endif
  const PropertyList creation(NL_H5(kKind, H5Pcreate(H5P_FILE_CREATE)));
  NL_H5(kKind, H5Pset_obj_track_times(creation.get(), false));
  return hdf5::File(NL_H5(kKind, H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get())));
}

/// Creates a contiguous dataset without times, so that equal contents are equal files.
Dataset create_contiguous(hdf5::Id parent, const char* name, Element element, const std::vector<hsize_t>& shape) {
  const PropertyList list(NL_H5(kKind, H5Pcreate(H5P_DATASET_CREATE)));
  NL_H5(kKind, H5Pset_layout(list.get(), H5D_CONTIGUOUS));
  NL_H5(kKind, H5Pset_alloc_time(list.get(), H5D_ALLOC_TIME_EARLY));
  NL_H5(kKind, H5Pset_obj_track_times(list.get(), false));
  const Dataspace space(NL_H5(kKind, H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr)));
  const hdf5::Datatype type = hdf5::disk_type(element, kKind);
  return Dataset(NL_H5(kKind, H5Dcreate2(parent, name, type.get(), space.get(), H5P_DEFAULT, list.get(), H5P_DEFAULT)));
}

template <typename T>
void write_contiguous(hdf5::Id parent, const char* name, const std::vector<T>& values, std::vector<hsize_t> shape) {
  const Dataset dataset = create_contiguous(parent, name, hdf5::element_of<T>(), shape);
  if (values.empty()) return;
  const hdf5::Datatype type = hdf5::disk_type(hdf5::element_of<T>(), kKind);
  NL_H5(kKind, H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()));
}

template <typename T>
void write_contiguous(hdf5::Id parent, const char* name, const std::vector<T>& values) {
  write_contiguous(parent, name, values, {values.size()});
}

void write_ids(hdf5::Id parent, IdSpool& ids) {
  const Dataset dataset = create_contiguous(parent, "ids", Element::kInt32, {static_cast<hsize_t>(ids.size_tokens())});
  const hdf5::Datatype type = hdf5::disk_type(Element::kInt32, kKind);
  ids.for_pieces([&](int64_t begin, std::span<const int32_t> piece) {
    const hsize_t start = static_cast<hsize_t>(begin);
    const hsize_t count = piece.size();
    const Dataspace there(NL_H5(kKind, H5Dget_space(dataset.get())));
    NL_H5(kKind, H5Sselect_hyperslab(there.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr));
    const Dataspace here(NL_H5(kKind, H5Screate_simple(1, &count, nullptr)));
    NL_H5(kKind, H5Dwrite(dataset.get(), type.get(), here.get(), there.get(), H5P_DEFAULT, piece.data()));
  });
}

std::vector<int32_t> lengths_of(const std::vector<int64_t>& offsets) {
  std::vector<int32_t> lengths;
  for (size_t i = 1; i < offsets.size(); ++i) lengths.push_back(static_cast<int32_t>(offsets[i] - offsets[i - 1]));
  return lengths;
}

void write_invalid_rows(hdf5::Id parent, const StoreContent& content) {
  std::vector<int64_t> lines;
  std::vector<int64_t> samples;
  std::vector<std::string> reasons;
  for (const InvalidRow& row : content.invalid_rows) {
    lines.push_back(row.line);
    samples.push_back(row.sample);
    reasons.push_back(row.reason);
  }
  write_contiguous(parent, "invalid_lines", lines);
  if (reasons.empty()) return;
  hdf5::write_texts(parent, "invalid_reasons", reasons, kKind);
  if (samples.front() >= 0) write_contiguous(parent, "invalid_samples", samples);
}

void write_content(hdf5::Id root, const StoreContent& content, IdSpool& ids) {
  const auto attribute = [&](const char* name, auto value) { hdf5::write_attribute(root, name, value, kKind); };
  attribute("format", std::string_view("neoloom token store"));
  attribute("format_version", kStoreFormatVersion);
  attribute("content_hash", std::string_view(content.content_hash));
  attribute("samples", static_cast<int64_t>(content.offsets.size()) - 1);
  attribute("tokens", ids.size_tokens());
  attribute("num_labels", static_cast<int64_t>(content.label_names.size()));
  attribute("labelled", int64_t{content.labelled});
  const auto truncated = std::count(content.truncated.begin(), content.truncated.end(), 1);
  attribute("truncated_samples", static_cast<int64_t>(truncated));
  attribute("invalid_rows", content.invalid_row_count);
  const hsize_t samples = content.offsets.size() - 1;
  const hsize_t width = content.multi_labels.empty() ? 0 : content.label_names.size();
  write_ids(root, ids);
  write_contiguous(root, "offsets", content.offsets);
  write_contiguous(root, "lengths", lengths_of(content.offsets));
  write_contiguous(root, "prompt_tokens", content.prompt_tokens);
  write_contiguous(root, "target_counts", content.target_counts);
  write_contiguous(root, "labels", content.labels);
  write_contiguous(root, "multi_labels", content.multi_labels, {samples, width});
  if (truncated > 0) write_contiguous(root, "truncated", content.truncated);
  if (!content.row_begins.empty()) write_contiguous(root, "row_begins", content.row_begins);
  if (!content.span_offsets.empty()) {
    write_contiguous(root, "span_offsets", content.span_offsets);
    write_contiguous(root, "target_spans", content.target_spans);
  }
  if (!content.values.empty()) write_contiguous(root, "values", content.values, {samples, content.label_names.size()});
  if (!content.label_names.empty()) hdf5::write_texts(root, "label_names", content.label_names, kKind);
  write_invalid_rows(root, content);
}

}  // namespace

IdSpool::IdSpool(const std::string& directory) : directory_(directory), file_(core::unnamed_file(directory, kKind)) {}

void IdSpool::append(std::span<const int32_t> ids) {
  buffer_.insert(buffer_.end(), ids.begin(), ids.end());
  size_tokens_ += static_cast<int64_t>(ids.size());
  if (buffer_.size() >= kPieceTokens) flush();
}

void IdSpool::flush() {
  const int error = core::write_fully(file_.get(), buffer_.data(), buffer_.size() * sizeof(int32_t));
  if (error != 0) {
    throw core::WriteError(kKind, fmt::format("cannot write token ids in {}: {}", directory_, std::strerror(error)));
  }
  buffer_.clear();
}

void IdSpool::read_piece(int64_t begin_tokens, std::vector<int32_t>& piece) const {
  piece.resize(std::min(kPieceTokens, static_cast<size_t>(size_tokens_ - begin_tokens)));
  size_t done_bytes = 0;
  while (done_bytes < piece.size() * sizeof(int32_t)) {
    const ssize_t got = ::pread(file_.get(), reinterpret_cast<char*>(piece.data()) + done_bytes,
                                piece.size() * sizeof(int32_t) - done_bytes,
                                static_cast<off_t>(begin_tokens * sizeof(int32_t) + done_bytes));
    if (got < 0 && errno == EINTR) continue;
    core::require(got > 0, kKind, "cannot read token ids back in {}: {}", directory_,
                  got < 0 ? std::strerror(errno) : "the file is shorter than what was written");
    done_bytes += static_cast<size_t>(got);
  }
}

namespace {

size_t bytes_of(const StoreContent& content, const IdSpool& ids) {
  return static_cast<size_t>(ids.size_tokens()) * sizeof(int32_t) +
         content.offsets.size() * (2 * sizeof(int64_t) + 3 * sizeof(int32_t) + 1) + content.multi_labels.size() +
         content.values.size() * sizeof(float) + content.target_spans.size() * sizeof(int32_t) +
         (content.row_begins.size() + content.span_offsets.size()) * sizeof(int64_t);
}

}  // namespace

void publish_store(const StoreContent& content, IdSpool& ids, const std::string& store_path) {
  hdf5::prepare_library();
  core::remove_stale_temporaries(store_path);
  // Checks for free space before anything is written: on a full disk HDF5 only says that some call of its own failed.
  core::AtomicFile temporary(store_path, bytes_of(content, ids), kKind);
  hdf5::File file = create_file(temporary.temporary_path());
  {
    const hdf5::Group root(NL_H5(kKind, H5Gopen2(file.get(), "/", H5P_DEFAULT)));
    write_content(root.get(), content, ids);
  }
  hdf5::close_file(file, kKind);
  append_checksum(temporary);
  temporary.publish();
}

}  // namespace neoloom::data
