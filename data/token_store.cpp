// SPDX-License-Identifier: Apache-2.0
#include "data/token_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "data/readers/input_text.h"
#include "data/readers/lines.h"
#include "data/readers/rows.h"
#include "data/store/labels.h"
#include "data/store/sample_maker.h"
#include "data/store/store_file.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/hash.h"
#include "runtime/core/text.h"
#include "runtime/core/utf8.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::fail;
using core::require;

constexpr int64_t kInvalidRowsListed = 20;
constexpr int64_t kNotUtf8RowsListed = 3;
constexpr size_t kInvalidRowsKept = 10'000;
constexpr size_t kLongestReasonBytes = 400;
constexpr size_t kHashDigitsInName = 32;
constexpr int64_t kRowsBetweenReports = 256;

/// Whether texts are cut into as many samples as they need. Others lose what exceeds max_length.
bool cuts_documents(const StoreRequest& request, Format format) {
  const std::string& pack = request.options.pack;
  return request.task == Task::kCausalLm && !has_responses(request.options) &&
         (pack == "documents" || (pack == "auto" && format == Format::kText));
}

int problem_number(Task task) { return task == Task::kMultiLabel ? 1 : task == Task::kRegression ? 2 : 0; }

/// Returns what decides the bytes of a store besides the file and the tokenizer.
std::string settings_text(const StoreRequest& request, Format format) {
  const Options& options = request.options;
  return fmt::format(
             "format={} header={} quoting={} task={} problem={} max_length={} require_labels={} tolerance={:a} eos={} "
             "split={} "
             "num_labels={}",
             static_cast<int>(format), options.header, options.quoting, request.task == Task::kCausalLm ? 1 : 0,
             problem_number(request.task), request.max_length_tokens, request.require_labels,
             options.invalid_data_tolerance_percent, request.tokenizer_options.add_eos_token,
             request.tokenizer_options.split_special_tokens, request.num_labels.value_or(-1)) +
         (request.every_row ? " every_row" : "") +
         (options.encoding == "utf-8" ? "" : " encoding=" + options.encoding) +
         (options.delimiter.empty() ? "" : " delimiter=" + options.delimiter);
}

std::optional<std::vector<std::string>> fixed_names(const StoreRequest& request) {
  if (request.label_names) return request.label_names;
  if (!request.options.label_names.empty()) return request.options.label_names;
  return std::nullopt;
}

/// Returns whether the label names are the user's own, given for the numbers from 0 (data.label_names), and not those
/// that a run found.
bool names_numbers(const StoreRequest& request) {
  const std::vector<std::string>& own = request.options.label_names;
  return !own.empty() && (!request.label_names || *request.label_names == own);
}

/// Returns the SHA-256 of a file's bytes, and its format.
std::pair<std::string, Format> identify(const std::string& path, const Options& options, core::ByteProgress& progress) {
  constexpr size_t kPieceBytes = size_t{1} << 20;
  InputFile file(path, options.encoding);
  core::Sha256 hash;
  for (std::string_view rest = file.bytes(); !rest.empty();) {
    const std::string_view piece = rest.substr(0, kPieceBytes);
    hash.add(piece);
    progress.add(piece.size());
    rest.remove_prefix(piece.size());
  }
  return {hash.hex(), format_of(path, options, file.head())};
}

uint64_t bytes_of(const std::vector<std::string>& paths) {
  uint64_t bytes = 0;
  std::error_code missing;  // whoever reads the file tells
  for (const std::string& path : paths) {
    const uint64_t size = std::filesystem::file_size(path, missing);
    bytes += missing ? 0 : size;
  }
  return bytes;
}

std::string content_hash_of(const StoreRequest& request, const Tokenizer& tokenizer, const core::BeginWork& begin) {
  const Options& options = request.options;
  const std::vector<std::string> paths = request.files.expand();
  core::ByteProgress progress(core::begin_work(begin, "hashing data", "kB"), bytes_of(paths));
  std::vector<std::pair<std::string, Format>> files;
  files.reserve(paths.size());
  for (const std::string& path : paths) files.push_back(identify(path, options, progress));
  const auto& [first_hash, first_format] = files.front();
  core::Sha256 hash;
  hash.add_field(fmt::format("neoloom token store {}", kStoreFormatVersion));
  hash.add_field(first_hash);
  hash.add_field(tokenizer.content_hash());
  hash.add_field(settings_text(request, first_format));
  for (const std::string& name : {options.text_column, options.label_column, options.labels_column,
                                  options.labels_separator, options.prompt_column, options.response_column}) {
    hash.add_field(name);
  }
  if (!options.prompt_template.empty()) hash.add_field("template " + options.prompt_template);
  if (!options.messages_column.empty()) hash.add_field("messages " + options.messages_column);
  if (request.loss_on_prompt) hash.add_field("loss on the prompt, too");
  if (!options.text_pair_column.empty()) hash.add_field("pair " + options.text_pair_column);
  const TokenizerOptions& tokenizing = request.tokenizer_options;
  if (tokenizing.truncation_side != "right") hash.add_field("truncation side " + tokenizing.truncation_side);
  if (tokenizing.return_overflowing_tokens) hash.add_field(fmt::format("windows with stride {}", tokenizing.stride));
  for (const auto& [file_hash, format] : files) {
    const bool plain = format == Format::kText;
    if (request.task != Task::kCausalLm || cuts_documents(request, format) == plain) continue;
    hash.add_field(plain ? "lines are samples" : "rows are documents");
    break;
  }
  const auto names = fixed_names(request);
  hash.add_field(names ? fmt::format("{} names", names->size()) : "names from the data");
  for (const std::string& name : names.value_or(std::vector<std::string>{})) hash.add_field(name);
  if (names && !names_numbers(request)) hash.add_field("labels go by their names only");
  // Sorted is the order without a preference, too, so a preference for it gives the same store.
  if (!names && request.preferred_label_names != sorted_labels(request.preferred_label_names)) {
    hash.add_field("preferred order");
    for (const std::string& name : request.preferred_label_names) hash.add_field(name);
  }
  if (request.embedding_rows > 0 && tokenizer.vocab_size() > request.embedding_rows) {
    hash.add_field(fmt::format("ids below {}", request.embedding_rows));
  }
  for (size_t i = 1; i < files.size(); ++i) {
    hash.add_field(fmt::format("then {} format={}", files[i].first, static_cast<int>(files[i].second)));
  }
  return hash.hex();
}

std::string store_name(const std::string& content_hash) {
  return fmt::format("tokens-{}.h5", content_hash.substr(0, kHashDigitsInName));
}

/// Collects the samples of the files.
class Builder {
 public:
  Builder(const StoreRequest& request, const Tokenizer& tokenizer, const std::string& store_path,
          const core::BeginWork& begin)
      : request_(request),
        begin_(begin),
        paths_(request.files.expand()),
        directory_(directory_for(store_path)),
        maker_(request, tokenizer),
        labels_({request.files.text(), fixed_names(request), request.num_labels, request.preferred_label_names,
                 names_numbers(request)}),
        spool_(directory_) {
    content_.content_hash = content_hash_of(request, tokenizer, begin);
    content_.labelled = true;
    if (maker_.makes_windows()) content_.row_begins = {0};
    if (maker_.reads_chats()) content_.span_offsets = {0};
  }

  void build(const std::string& store_path) {
    progress_ = {core::begin_work(begin_, "tokenising", "kB"), bytes_of(paths_)};
    for (const std::string& path : paths_) {
      read_file(path);
      bytes_before_ += std::filesystem::file_size(path);
    }
    check_tolerance();
    require(content_.offsets.size() > 1, ErrorKind::kData, "{} has no row that can be used; expected at least one{}",
            request_.files.text(), listed_rows());
    if (request_.task == Task::kRegression) {
      finish_values();
    } else if (request_.task != Task::kCausalLm) {
      finish_labels();
    }
    publish_store(content_, spool_, store_path);
  }

 private:
  static std::string directory_for(const std::string& store_path) {
    const std::filesystem::path parent = std::filesystem::path(store_path).parent_path();
    std::string directory = parent.empty() ? std::string(".") : parent.string();
    core::make_directories(directory, ErrorKind::kData);
    return directory;
  }

  void read_file(const std::string& path) {
    path_ = path;
    labels_.begin_file(path);
    InputFile file(path, request_.options.encoding);
    const std::string_view text = file.text(directory_, begin_);
    require(!without_byte_order_mark(text).empty(), ErrorKind::kData, "{} is empty; expected at least one row", path);
    ReaderRequest reading = reader_request(path, text, request_.options);
    if (reading.format != Format::kParquet) require_text(path, text);
    require(reading.format != Format::kParquet || !file.compressed(), ErrorKind::kData,
            "{} is a Parquet file within a compressed file; unpack it (Parquet compresses by itself)", path);
    const bool cuts = cuts_documents(request_, reading.format);
    if (cuts && reading.format == Format::kText) return read_document(without_byte_order_mark(text));
    reading.columns = maker_.columns();
    reading.as_json = maker_.reads_chats();
    read_rows(*open_rows(reading), cuts);
  }

  /// Reads the whole text as one document.
  void read_document(std::string_view text) {
    const size_t valid = core::utf8_prefix_bytes(text);
    require(valid == text.size(), ErrorKind::kData, "{}: line {}: {}", path_,
            1 + std::count(text.begin(), text.begin() + static_cast<int64_t>(valid), '\n'), encoding_complaint(text));
    const std::vector<int32_t> ids = maker_.encode_document(text);
    const std::string complaint = maker_.complaint_about(ids);
    require(complaint.empty(), ErrorKind::kData, "{}: {}", path_, complaint);
    add_pieces(ids);
  }

  /// Adds a document as samples of max_length tokens. The last one may be shorter.
  void add_pieces(std::span<const int32_t> ids) {
    const auto most = static_cast<size_t>(request_.max_length_tokens);
    for (; !ids.empty(); ids = ids.subspan(std::min(ids.size(), most))) {
      const auto piece = ids.first(std::min(ids.size(), most));
      Sample sample;
      sample.ids.assign(piece.begin(), piece.end());
      sample.target_count = static_cast<int32_t>(piece.size()) - 1;
      add(sample);
    }
  }

  void read_rows(RowReader& reader, bool cuts_documents) {
    std::vector<bool> seen(maker_.columns().size(), false);
    int64_t rows = 0;
    Row row;
    Sample sample;
    while (reader.next(row)) {
      if (++rows % kRowsBetweenReports == 0) report(reader.share_read());
      for (size_t i = 0; i < seen.size(); ++i) seen[i] = seen[i] || row.cells[i].kind != Cell::Kind::kMissing;
      std::string complaint = maker_.make(row, labels_, sample, cuts_documents);
      if (complaint.empty()) complaint = wrong_width(sample);
      if (request_.every_row && complaint.empty() && sample.ids.empty()) complaint = "the text is empty";
      if (complaint.empty()) {
        cuts_documents ? add_pieces(sample.ids) : add_row(sample);
      } else {
        add_invalid(row.line, complaint);
      }
    }
    require(rows > 0, ErrorKind::kData, "{} has no rows; expected at least one", path_);
    rows_ += rows;
    for (size_t i = 0; i < seen.size(); ++i) {
      const Column& column = maker_.columns()[i];
      const std::vector<std::string>& found = reader.columns_found();
      const bool named = std::find(found.begin(), found.end(), column.name) != found.end();
      if (!seen[i] && !named && !column.optional && !found.empty()) fail_without_column(path_, column, found);
    }
  }

  void report(double share_of_file) {
    const auto now = share_of_file * static_cast<double>(std::filesystem::file_size(path_));
    progress_.set(bytes_before_ + static_cast<uint64_t>(now));
  }

  /// Adds a row as one sample, or as its windows.
  void add_row(Sample& sample) {
    if (!maker_.makes_windows()) return add(sample);
    for (std::vector<int32_t>& ids : maker_.windows(sample.ids)) {
      sample.ids = std::move(ids);
      add(sample);
    }
    content_.row_begins.push_back(samples());
  }

  int64_t samples() const { return static_cast<int64_t>(content_.offsets.size()) - 1; }

  void add(const Sample& sample) {
    spool_.append(sample.ids);
    content_.offsets.push_back(spool_.size_tokens());
    content_.prompt_tokens.push_back(sample.prompt_tokens);
    content_.target_counts.push_back(sample.target_count);
    content_.labels.push_back(sample.label.value_or(-1));
    content_.truncated.push_back(sample.truncated ? 1 : 0);
    if (maker_.reads_chats()) {
      std::vector<int32_t>& spans = content_.target_spans;
      spans.insert(spans.end(), sample.target_spans.begin(), sample.target_spans.end());
      content_.span_offsets.push_back(std::ssize(spans));
    }
    if (request_.task == Task::kCausalLm) return;
    content_.labelled = content_.labelled && sample.target_count > 0;
    if (request_.task == Task::kMultiLabel) {
      looks_one_hot_ = looks_one_hot_ && sample.zeros_and_ones > 0;
      multi_labels_.push_back(sample.multi_labels.value_or(std::vector<int64_t>{}));
    }
    if (request_.task == Task::kRegression) values_.push_back(sample.values);
  }

  void add_invalid(int64_t line, const std::string& reason) {
    ++content_.invalid_row_count;
    const int64_t rows = maker_.makes_windows() ? std::ssize(content_.row_begins) - 1 : samples();
    const int64_t sample = request_.every_row ? rows : -1;
    if (request_.every_row || content_.invalid_rows.size() < kInvalidRowsKept) {
      const std::string file = paths_.size() > 1 ? path_ + ": " : "";
      content_.invalid_rows.push_back({line, core::printable(file + reason, kLongestReasonBytes), sample});
    }
    if (!request_.every_row) return;
    Sample stand_in;
    stand_in.ids = {0};
    add(stand_in);
    if (maker_.makes_windows()) content_.row_begins.push_back(samples());
  }

  std::string listed_rows() const {
    std::string text;
    int64_t listed = 0;
    int64_t not_utf8 = 0;
    for (const InvalidRow& row : content_.invalid_rows) {
      if (listed == kInvalidRowsListed) break;
      // One key mends them all.
      if (row.reason.find("not UTF-8") != std::string::npos && ++not_utf8 > kNotUtf8RowsListed) continue;
      text += fmt::format("\n  line {}: {}", row.line, row.reason);
      ++listed;
    }
    if (content_.invalid_row_count > listed)
      text += fmt::format("\n  and {} more", content_.invalid_row_count - listed);
    return text;
  }

  void check_tolerance() const {
    if (request_.every_row || content_.invalid_row_count == 0) return;
    const double percent = 100.0 * static_cast<double>(content_.invalid_row_count) / static_cast<double>(rows_);
    if (percent <= request_.options.invalid_data_tolerance_percent) return;
    fail(ErrorKind::kData,
         "{}: {} of {} rows cannot be read ({:.3g} %), more than data.invalid_data_tolerance_percent = {} allows; "
         "correct the rows or raise it:{}",
         request_.files.text(), content_.invalid_row_count, rows_, percent,
         request_.options.invalid_data_tolerance_percent, listed_rows());
  }

  /// Returns the number of values of each row; 0: not known yet. Names and num_labels say it, else the first row.
  size_t value_width() const {
    if (const auto names = fixed_names(request_)) return names->size();
    if (request_.num_labels) return static_cast<size_t>(*request_.num_labels);
    const auto first = std::find_if(values_.begin(), values_.end(), [](const auto& row) { return !row.empty(); });
    return first == values_.end() ? 0 : first->size();
  }

  std::string wrong_width(const Sample& sample) const {
    if (sample.values.empty()) return {};
    const size_t width = value_width();
    if (width == 0 || width == sample.values.size()) return {};
    return fmt::format("expected {} value{} to predict, found {}", width, width == 1 ? "" : "s", sample.values.size());
  }

  void finish_values() {
    const size_t width = std::max<size_t>(1, value_width());
    const std::vector<std::string>& preferred = request_.preferred_label_names;
    content_.label_names = default_label_names(static_cast<int64_t>(width));
    if (preferred.size() == width) content_.label_names = preferred;
    if (const auto names = fixed_names(request_)) content_.label_names = *names;
    for (std::vector<float>& row : values_) {
      row.resize(width, std::numeric_limits<float>::quiet_NaN());
      content_.values.insert(content_.values.end(), row.begin(), row.end());
    }
  }

  void finish_labels() {
    const Labels::Result result = labels_.finish();
    content_.label_names = result.names;
    require(request_.task != Task::kMultiLabel || !looks_one_hot_ || result.names.size() != 2, ErrorKind::kData,
            "{}: every list of labels is [0, 1] or [1, 0], which names both classes in each row; "
            "one-hot lists are not supported: write the names or numbers of the labels that apply, [1] for [0, 1]",
            request_.files.text());
    for (int64_t& label : content_.labels) {
      if (label >= 0) label = result.class_index[static_cast<size_t>(label)];
    }
    if (request_.task != Task::kMultiLabel) return;
    require(!result.names.empty(), ErrorKind::kData,
            "{}: no row has a label: all lists of data.labels_column are empty; expected labels in some of them",
            request_.files.text());
    const size_t width = result.names.size();
    content_.multi_labels.assign(multi_labels_.size() * width, 0);
    for (size_t sample = 0; sample < multi_labels_.size(); ++sample) {
      for (const int64_t number : multi_labels_[sample]) {
        content_.multi_labels[sample * width + static_cast<size_t>(result.class_index[static_cast<size_t>(number)])] =
            1;
      }
    }
  }

  const StoreRequest& request_;
  const core::BeginWork& begin_;
  core::ByteProgress progress_;  // of tokenising
  size_t bytes_before_ = 0;      // of the files that have been read
  std::vector<std::string> paths_;
  std::string path_;  // of the file that is being read
  std::string directory_;
  int64_t rows_ = 0;
  SampleMaker maker_;
  Labels labels_;
  IdSpool spool_;
  StoreContent content_;
  std::vector<std::vector<int64_t>> multi_labels_;  // numbers of Labels, per sample
  std::vector<std::vector<float>> values_;          // regression, per sample
  bool looks_one_hot_ = true;                       // so far
};

}  // namespace

std::string TokenStore::path_for(const StoreRequest& request, const Tokenizer& tokenizer, const core::Cache& cache) {
  const std::string hash = content_hash_of(request, tokenizer, cache.show);
  return (std::filesystem::path(cache.directory) / store_name(hash)).string();
}

void TokenStore::build(const StoreRequest& request, const Tokenizer& tokenizer, const std::string& store_path,
                       const core::BeginWork& begin) {
  Builder(request, tokenizer, store_path, begin).build(store_path);
}

std::shared_ptr<const TokenStore> TokenStore::open(const std::string& store_path) { return map_store(store_path); }

bool TokenStore::is_whole(const std::string& store_path, const core::Cache& cache) {
  return cache.use(store_path, [&] {
    if (!cache.verified) verify_checksum(store_path, cache);  // before HDF5, which damaged files may crash
    const std::string made_for = store_name(open(store_path)->content_hash());
    require(made_for == std::filesystem::path(store_path).filename(), ErrorKind::kData, "it was made as {}", made_for);
  });
}

int64_t TokenStore::packs() const {
  const auto begins = pack_begins();
  return begins.empty() ? size() : static_cast<int64_t>(begins.size()) - 1;
}

int64_t TokenStore::pack_begin(int64_t pack) const {
  const auto begins = pack_begins();
  return begins.empty() ? pack : begins[static_cast<size_t>(pack)];
}

int64_t TokenStore::packs_without_target() const {
  const auto counts = target_counts();
  int64_t without = 0;
  for (int64_t pack = 0; pack < packs(); ++pack) without += counts[static_cast<size_t>(pack_begin(pack))] == 0 ? 1 : 0;
  return without;
}

}  // namespace neoloom::data
