// SPDX-License-Identifier: Apache-2.0
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "data/store/store_file.h"
#include "runtime/core/checksum.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/hdf5/handles.h"
#include "runtime/hdf5/objects.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;
using core::require;
using hdf5::Dataset;

constexpr ErrorKind kKind = ErrorKind::kData;

/// Returns arrays as views of the mapped file.
class Mapper {
 public:
  Mapper(const core::MappedFile& file, hdf5::Id root) : file_(file), root_(root) {}

  template <typename T>
  std::span<const T> array(const char* name, const std::vector<uint64_t>& shape) const {
    const auto found = hdf5::array_shape(root_, name, hdf5::element_of<T>(), file_.size_bytes(), kKind);
    require(found == shape, kKind, "dataset {} has another shape than the attributes say", name);
    uint64_t count = 1;
    for (const uint64_t extent : shape) count *= extent;
    if (count == 0) return {};
    const Dataset dataset(NL_H5(kKind, H5Dopen2(root_, name, H5P_DEFAULT)));
    const haddr_t at = H5Dget_offset(dataset.get());
    const uint64_t bytes = count * sizeof(T);
    require(at != HADDR_UNDEF && at % alignof(T) == 0 && at <= file_.size_bytes() && bytes <= file_.size_bytes() - at,
            kKind, "dataset {} is not contiguous in the file", name);
    return {reinterpret_cast<const T*>(file_.data() + at), count};
  }

 private:
  const core::MappedFile& file_;
  hdf5::Id root_;
};

class MappedStore : public TokenStore {
 public:
  explicit MappedStore(const std::string& path) : file_(path, kKind) {
    const hdf5::File file = open_file(path);
    const hdf5::Group root(NL_H5(kKind, H5Gopen2(file.get(), "/", H5P_DEFAULT)));
    read_attributes(root.get());
    read_arrays(root.get());
    read_texts(root.get());
    check_offsets();
  }

  int64_t size() const override { return static_cast<int64_t>(lengths_.size()); }
  std::span<const int32_t> ids(int64_t sample) const override {
    return ids_.subspan(static_cast<size_t>(offsets_[sample]), static_cast<size_t>(lengths_[sample]));
  }
  int32_t prompt_tokens(int64_t sample) const override { return prompt_tokens_[sample]; }
  int64_t label(int64_t sample) const override { return labels_[sample]; }
  std::span<const uint8_t> multi_label(int64_t sample) const override {
    const size_t width = multi_labels_.size() / lengths_.size();
    return multi_labels_.subspan(static_cast<size_t>(sample) * width, width);
  }
  std::span<const float> values(int64_t sample) const override {
    const size_t width = values_.size() / lengths_.size();
    return values_.subspan(static_cast<size_t>(sample) * width, width);
  }
  bool labelled() const override { return labelled_; }
  const std::vector<std::string>& label_names() const override { return label_names_; }
  std::span<const int32_t> lengths() const override { return lengths_; }
  std::span<const int32_t> target_counts() const override { return target_counts_; }
  const std::vector<InvalidRow>& invalid_rows() const override { return invalid_rows_; }
  int64_t invalid_row_count() const override { return invalid_row_count_; }
  bool truncated(int64_t sample) const override {
    return !truncated_.empty() && truncated_[static_cast<size_t>(sample)] != 0;
  }
  int64_t truncated_samples() const override { return truncated_samples_; }
  std::span<const int64_t> pack_begins() const override { return row_begins_; }
  std::span<const int32_t> target_spans(int64_t sample) const override {
    if (span_offsets_.empty()) return {};
    const int64_t begin = span_offsets_[static_cast<size_t>(sample)];
    return target_spans_.subspan(static_cast<size_t>(begin),
                                 static_cast<size_t>(span_offsets_[static_cast<size_t>(sample) + 1] - begin));
  }
  const std::string& content_hash() const override { return content_hash_; }

 private:
  static hdf5::File open_file(const std::string& path) {
    const hdf5::PropertyList access(NL_H5(kKind, H5Pcreate(H5P_FILE_ACCESS)));
#if H5_VERSION_GE(1, 10, 7)
    // Opens without a lock: published stores never change, and some shared file systems have no locks.
    NL_H5(kKind, H5Pset_file_locking(access.get(), false, true));
#endif
    return hdf5::File(NL_H5(kKind, H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get())));
  }

  void read_attributes(hdf5::Id root) {
    const auto integer = [&](const char* name) { return hdf5::read_int_attribute(root, name, kKind); };
    const std::string format = hdf5::read_text_attribute(root, "format", kKind);
    require(format == "neoloom token store", kKind, "expected format \"neoloom token store\", found \"{}\"", format);
    const int64_t version = integer("format_version");
    require(version == kStoreFormatVersion, kKind, "expected format version {}, found {}", kStoreFormatVersion,
            version);
    content_hash_ = hdf5::read_text_attribute(root, "content_hash", kKind);
    samples_ = static_cast<uint64_t>(integer("samples"));
    tokens_ = static_cast<uint64_t>(integer("tokens"));
    num_labels_ = static_cast<uint64_t>(integer("num_labels"));
    labelled_ = integer("labelled") != 0;
    truncated_samples_ = integer("truncated_samples");
    invalid_row_count_ = integer("invalid_rows");
  }

  void read_arrays(hdf5::Id root) {
    const Mapper mapper(file_, root);
    ids_ = mapper.array<int32_t>("ids", {tokens_});
    offsets_ = mapper.array<int64_t>("offsets", {samples_ + 1});
    lengths_ = mapper.array<int32_t>("lengths", {samples_});
    prompt_tokens_ = mapper.array<int32_t>("prompt_tokens", {samples_});
    target_counts_ = mapper.array<int32_t>("target_counts", {samples_});
    labels_ = mapper.array<int64_t>("labels", {samples_});
    const auto shape = hdf5::array_shape(root, "multi_labels", hdf5::Element::kUint8, file_.size_bytes(), kKind);
    const uint64_t width = shape.size() == 2 && shape[1] > 0 ? num_labels_ : 0;
    multi_labels_ = mapper.array<uint8_t>("multi_labels", {samples_, width});
    const auto has = [&](const char* name) { return NL_H5(kKind, H5Lexists(root, name, H5P_DEFAULT)) > 0; };
    const auto of_any_length = [&](const char* name, hdf5::Element element) {
      return hdf5::array_shape(root, name, element, file_.size_bytes(), kKind);
    };
    if (has("values")) values_ = mapper.array<float>("values", {samples_, num_labels_});
    // Version 1 before windows did not say which samples were truncated: such a store is built again.
    if (truncated_samples_ > 0) truncated_ = mapper.array<uint8_t>("truncated", {samples_});
    if (has("row_begins")) {
      row_begins_ = mapper.array<int64_t>("row_begins", of_any_length("row_begins", hdf5::Element::kInt64));
    }
    if (!has("span_offsets")) return;
    span_offsets_ = mapper.array<int64_t>("span_offsets", {samples_ + 1});
    target_spans_ = mapper.array<int32_t>("target_spans", of_any_length("target_spans", hdf5::Element::kInt32));
  }

  void read_texts(hdf5::Id root) {
    const uint64_t limit = file_.size_bytes();
    if (num_labels_ > 0) label_names_ = hdf5::read_texts(root, "label_names", limit, kKind);
    require(label_names_.size() == num_labels_, kKind, "expected {} label names, found {}", num_labels_,
            label_names_.size());
    const auto shape = hdf5::array_shape(root, "invalid_lines", hdf5::Element::kInt64, limit, kKind);
    const auto lines = Mapper(file_, root).array<int64_t>("invalid_lines", shape);
    if (lines.empty()) return;
    std::vector<std::string> reasons = hdf5::read_texts(root, "invalid_reasons", limit, kKind);
    require(reasons.size() == lines.size(), kKind, "{} lines but {} reasons of invalid rows", lines.size(),
            reasons.size());
    for (size_t i = 0; i < lines.size(); ++i) invalid_rows_.push_back({lines[i], std::move(reasons[i])});
    if (NL_H5(kKind, H5Lexists(root, "invalid_samples", H5P_DEFAULT)) == 0) return;
    const auto samples = Mapper(file_, root).array<int64_t>("invalid_samples", shape);
    for (size_t i = 0; i < samples.size(); ++i) {
      require(samples[i] >= 0 && static_cast<uint64_t>(samples[i]) < samples_, kKind,
              "an invalid row stands for sample {} of {}", samples[i], samples_);
      invalid_rows_[i].sample = samples[i];
    }
  }

  void check_offsets() const {
    bool consistent = !lengths_.empty() && offsets_.front() == 0 && static_cast<uint64_t>(offsets_.back()) == tokens_;
    for (size_t i = 0; consistent && i < lengths_.size(); ++i) {
      consistent = lengths_[i] >= 0 && offsets_[i + 1] - offsets_[i] == lengths_[i];
    }
    require(consistent, kKind, "offsets, lengths and ids do not fit together");
    const auto divides = [](std::span<const int64_t> begins, uint64_t size) {
      return begins.empty() || (begins.front() == 0 && static_cast<uint64_t>(begins.back()) == size &&
                                std::is_sorted(begins.begin(), begins.end()));
    };
    require(divides(row_begins_, samples_), kKind, "row_begins does not divide the samples");
    require(divides(span_offsets_, target_spans_.size()), kKind, "span_offsets does not divide target_spans");
  }

  core::MappedFile file_;
  uint64_t samples_ = 0;
  uint64_t tokens_ = 0;
  uint64_t num_labels_ = 0;
  bool labelled_ = false;
  int64_t truncated_samples_ = 0;
  int64_t invalid_row_count_ = 0;
  std::string content_hash_;
  std::span<const int32_t> ids_;
  std::span<const int64_t> offsets_;
  std::span<const int32_t> lengths_;
  std::span<const int32_t> prompt_tokens_;
  std::span<const int32_t> target_counts_;
  std::span<const int64_t> labels_;
  std::span<const uint8_t> multi_labels_;
  std::span<const float> values_;
  std::span<const uint8_t> truncated_;
  std::span<const int64_t> row_begins_;
  std::span<const int64_t> span_offsets_;
  std::span<const int32_t> target_spans_;
  std::vector<std::string> label_names_;
  std::vector<InvalidRow> invalid_rows_;
};

}  // namespace

void verify_checksum(const std::string& store_path, const core::Cache& cache) {
  const core::UniqueFd file = core::open_regular(store_path, kKind);
  struct stat status {};
  require(::fstat(file.get(), &status) == 0, kKind, "cannot stat {}: {}", store_path, std::strerror(errno));
  const auto size = static_cast<uint64_t>(status.st_size);
  require(size > kChecksumLineBytes, kKind, "it was truncated: it has {} bytes", size);
  const uint64_t line_at = size - kChecksumLineBytes;
  std::string line(kChecksumLineBytes, '\0');
  require(::pread(file.get(), line.data(), line.size(), static_cast<off_t>(line_at)) == std::ssize(line), kKind,
          "cannot read {}: {}", store_path, std::strerror(errno));
  require(line.starts_with(kChecksumLine), kKind,
          "it does not end with its checksum: it was truncated, or an older version wrote it");
  const std::string written = line.substr(kChecksumLine.size(), core::kChecksumDigits);
  const std::string found = core::file_checksum(file.get(), size, line_at + kChecksumLine.size(), store_path, kKind,
                                                cache.begin("verifying cached tokens", size));
  require(found == written, kKind, "it was changed: its checksum is {}, expected {}", found, written);
}

std::shared_ptr<const TokenStore> map_store(const std::string& store_path) {
  hdf5::prepare_library();
  try {
    return std::make_shared<const MappedStore>(store_path);
  } catch (const core::Error& error) {
    fail(kKind, "{} is not a complete token store ({}); delete it, and it is rebuilt from the data", store_path,
         error.what());
  }
}

}  // namespace neoloom::data
