// SPDX-License-Identifier: Apache-2.0
#include "data/store/sample_maker.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "data/store/windows.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::require;

constexpr size_t kLabelInMessagesBytes = 60;
constexpr const char* kOneHot =
    "one-hot lists are not supported: write the names or numbers of the labels that apply, [0, 2] for [1, 0, 1]";

std::string expected_but_found(const Column& column, std::string_view expected, const Cell& cell) {
  const std::string name = core::quoted(column.name);
  switch (cell.kind) {
    case Cell::Kind::kMissing:
      return fmt::format("no value for {}", name);
    case Cell::Kind::kText:
      return fmt::format("{}: expected {}, found the text {}", name, expected,
                         core::quoted(cell.text, kLabelInMessagesBytes));
    case Cell::Kind::kInteger:
      return fmt::format("{}: expected {}, found the integer {}", name, expected, cell.text);
    case Cell::Kind::kList:
      return fmt::format("{}: expected {}, found a list", name, expected);
    case Cell::Kind::kOther:
      break;
  }
  return fmt::format("{}: expected {}, found {}", name, expected, cell.text);
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  if (text.empty()) return parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + separator.size()) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

/// Returns the number that a text is, apart from blanks around it; NaN: it is none.
double number_in(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = std::min(text.find_first_not_of(kBlanks), text.size());
  text = text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
  double number = NAN;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  return read.ec == std::errc{} && read.ptr == text.data() + text.size() ? number : NAN;
}

int32_t causal_targets(const Sample& sample) {
  // The first token of a sample has nothing before it that could predict it.
  const std::vector<int32_t>& spans = sample.target_spans;
  const auto length = static_cast<int32_t>(sample.ids.size());
  if (spans.empty()) return std::max(0, length - std::max(1, sample.prompt_tokens));
  int32_t targets = 0;
  for (size_t i = 0; i < spans.size(); i += 2) targets += std::max(0, spans[i + 1] - std::max(1, spans[i]));
  return targets;
}

}  // namespace

SampleMaker::SampleMaker(const StoreRequest& request, const Tokenizer& tokenizer)
    : request_(request), tokenizer_(tokenizer) {
  const Options& options = request.options;
  require(request.max_length_tokens > 0, ErrorKind::kUsage,
          "tokenizer_config.max_length: expected at least 1, found {}", request.max_length_tokens);
  max_length_tokens_ = static_cast<size_t>(request.max_length_tokens);
  cuts_start_ = request.tokenizer_options.truncation_side == "left";
  const bool causal = request.task == Task::kCausalLm;
  prompted_ = causal && has_responses(options);
  if (prompted_ && !options.messages_column.empty()) {
    chat_.emplace(options.prompt_template);
    columns_.push_back({options.messages_column, "data.messages_column"});
  } else if (prompted_) {
    read_template(options);
  } else {
    require(!options.text_column.empty(), ErrorKind::kUsage, "data.text_column is empty: name the column of the text");
    columns_.push_back({options.text_column, "data.text_column"});
    paired_ = !options.text_pair_column.empty();
    require(!paired_ || !causal, ErrorKind::kUsage, "data.text_pair_column: a causal language model has no text pairs");
    if (paired_) columns_.push_back({options.text_pair_column, "data.text_pair_column"});
  }
  if (request.tokenizer_options.return_overflowing_tokens) prepare_windows(causal);
  if (causal && request.tokenizer_options.add_eos_token) {
    eos_id_ = tokenizer.eos_token_id();
    require(eos_id_ >= 0, ErrorKind::kUsage,
            "tokenizer_config.add_eos_token is true but the tokenizer has no eos token; set it to false");
  }
  if (causal) return;
  const bool multi =
      request.task == Task::kMultiLabel || (request.task == Task::kRegression && options.label_column.empty());
  const std::string& column = multi ? options.labels_column : options.label_column;
  const char* key = multi ? "data.labels_column" : "data.label_column";
  require(!column.empty() || !request.require_labels, ErrorKind::kUsage, "{} is empty: name the column of the labels",
          key);
  require(!multi || !options.labels_separator.empty(), ErrorKind::kUsage, "data.labels_separator is empty");
  has_label_column_ = !column.empty();
  if (has_label_column_) columns_.push_back({column, key, !request.require_labels});
}

void SampleMaker::prepare_windows(bool causal) {
  require(
      !causal, ErrorKind::kUsage,
      "tokenizer_config.return_overflowing_tokens: a language model has no windows; data.pack: documents cuts a long "
      "text into several samples");
  require(!paired_, ErrorKind::kUsage,
          "tokenizer_config.return_overflowing_tokens: text pairs have no windows; remove it or data.text_pair_column");
  const size_t special = tokenizer_.front_ids().size();
  const int64_t stride = request_.tokenizer_options.stride;
  require(stride >= 0 && static_cast<size_t>(stride) + special < max_length_tokens_, ErrorKind::kUsage,
          "tokenizer_config.stride: expected less than the {} tokens of a text in a window of max_length {}, found {}",
          max_length_tokens_ - std::min(max_length_tokens_, special), max_length_tokens_, stride);
  makes_windows_ = true;
}

std::vector<std::vector<int32_t>> SampleMaker::windows(const std::vector<int32_t>& ids) const {
  const std::vector<int32_t>& front = tokenizer_.front_ids();
  const auto stride = static_cast<size_t>(request_.tokenizer_options.stride);
  std::vector<std::vector<int32_t>> windows;
  for (const auto& [begin, end] :
       windows_of(ids.size() - front.size(), max_length_tokens_ - front.size(), stride, cuts_start_)) {
    std::vector<int32_t>& window = windows.emplace_back(front);
    const auto text = ids.begin() + static_cast<int64_t>(front.size());
    window.insert(window.end(), text + static_cast<int64_t>(begin), text + static_cast<int64_t>(end));
  }
  return windows;
}

void SampleMaker::read_template(const Options& options) {
  const bool pair = options.prompt_template.empty() || !options.prompt_column.empty();
  require(!pair || (!options.prompt_column.empty() && !options.response_column.empty()), ErrorKind::kUsage,
          "data.prompt_column and data.response_column must be given together, found \"{}\" and \"{}\"",
          options.prompt_column, options.response_column);
  template_.emplace(options);
  for (const auto& [name, optional] : template_->columns()) columns_.push_back({name, "data.template", optional});
  if (!pair) return;
  columns_.front().key = "data.prompt_column";
  columns_.back().key = "data.response_column";
}

std::vector<int32_t> SampleMaker::encode_document(std::string_view text) const {
  return ended(tokenizer_.encode_input(text, request_.tokenizer_options.split_special_tokens));
}

std::vector<int32_t> SampleMaker::ended(std::vector<int32_t> ids) const {
  if (eos_id_ >= 0) ids.push_back(eos_id_);
  return ids;
}

std::string SampleMaker::make(const Row& row, Labels& labels, Sample& sample, bool document) const {
  if (!row.error.empty()) return row.error;
  sample = Sample{};
  const size_t texts = has_label_column_ ? columns_.size() - 1 : columns_.size();
  for (size_t i = 0; i < texts; ++i) {
    if (chat_) break;  // make_chat() looks at it
    const bool absent = template_ && columns_[i].optional && row.cells[i].kind == Cell::Kind::kMissing;
    if (row.cells[i].kind != Cell::Kind::kText && !absent) {
      return expected_but_found(columns_[i], "a text", row.cells[i]);
    }
  }
  if (has_label_column_) {
    std::string complaint = make_target(row.cells[texts], row.line, labels, sample);
    if (!complaint.empty()) return complaint;
  }
  if (chat_) {
    if (std::string complaint = make_chat(row.cells[0], sample); !complaint.empty()) return complaint;
  } else if (prompted_) {
    make_prompted(row, sample);
  } else if (paired_) {
    make_pair(row.cells[0].text, row.cells[1].text, sample);
  } else if (document || makes_windows_) {
    sample.ids = encode_document(row.cells[0].text);
  } else {
    make_text(row.cells[0].text, sample);
  }
  if (std::string complaint = complaint_about(sample.ids); !complaint.empty()) return complaint;
  if (request_.task == Task::kCausalLm) {
    sample.target_count = causal_targets(sample);
  } else {
    sample.target_count = sample.label || sample.multi_labels || !sample.values.empty() ? 1 : 0;
  }
  return {};
}

std::string SampleMaker::complaint_about(const std::vector<int32_t>& ids) const {
  const int64_t rows = request_.embedding_rows;
  if (rows <= 0 || tokenizer_.vocab_size() <= rows) return {};
  const auto beyond = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id >= rows; });
  if (beyond == ids.end()) return {};
  return fmt::format("the text holds the token {} (id {}), but the model's embedding has {} rows: ids 0 to {}",
                     tokenizer_.token_bytes(*beyond), *beyond, rows, rows - 1);
}

void SampleMaker::make_text(const std::string& text, Sample& sample) const {
  sample.ids = encode_document(text);
  truncate(sample);
}

void SampleMaker::truncate(Sample& sample) const {
  std::vector<int32_t>& ids = sample.ids;
  if (ids.size() <= max_length_tokens_) return;
  sample.truncated = true;
  if (cuts_start_) {
    const auto text = ids.begin() + static_cast<int64_t>(std::min(tokenizer_.front_ids().size(), max_length_tokens_));
    ids.erase(text, text + static_cast<int64_t>(ids.size() - max_length_tokens_));
  } else {
    ids.resize(max_length_tokens_);
  }
}

void SampleMaker::make_pair(const std::string& text, const std::string& pair, Sample& sample) const {
  sample.ids = tokenizer_.encode_pair(
      text, pair, {max_length_tokens_, request_.tokenizer_options.split_special_tokens, cuts_start_}, sample.truncated);
}

void SampleMaker::make_prompted(const Row& row, Sample& sample) const {
  std::vector<std::string> values;
  for (const Cell& cell : row.cells) values.push_back(cell.text);
  join(template_->prompt(values), template_->response(values), sample);
}

std::string SampleMaker::make_chat(const Cell& cell, Sample& sample) const {
  const std::string column = core::quoted(columns_.front().name);
  if (cell.kind == Cell::Kind::kMissing) return fmt::format("no value for {}", column);
  std::vector<ChatMessage> messages;
  const std::string complaint = read_messages(cell.json, *chat_, messages);
  if (!complaint.empty()) return fmt::format("{}: {}", column, complaint);
  if (std::none_of(messages.begin(), messages.end(), [](const auto& message) { return message.role == kAssistant; })) {
    return fmt::format("{}: no message has the role \"assistant\", so there is nothing to learn", column);
  }
  ChatTokens chat =
      encode_chat(*chat_, messages, tokenizer_,
                  {.split_special_tokens = request_.tokenizer_options.split_special_tokens, .eos_id = eos_id_});
  const auto length = static_cast<int32_t>(chat.ids.size());
  sample.ids = std::move(chat.ids);
  truncate(sample);
  if (request_.loss_on_prompt) return {};
  sample.target_spans = std::move(chat.answers);
  fit_spans(cuts_start_ ? length - static_cast<int32_t>(sample.ids.size()) : 0, sample);
  return {};
}

void SampleMaker::fit_spans(int32_t removed, Sample& sample) const {
  const auto length = static_cast<int32_t>(sample.ids.size());
  const auto front = std::min(static_cast<int32_t>(tokenizer_.front_ids().size()), length);
  std::vector<int32_t> spans;
  for (size_t i = 0; i < sample.target_spans.size(); i += 2) {
    const int32_t begin = std::max(front, sample.target_spans[i] - removed);
    const int32_t end = std::min(length, sample.target_spans[i + 1] - removed);
    if (begin < end) spans.insert(spans.end(), {begin, end});
  }
  sample.prompt_tokens = spans.empty() ? length : spans.front();
  sample.target_spans = std::move(spans);
}

void SampleMaker::join(const std::string& prompt, const std::string& response, Sample& sample) const {
  // Prompt and response are tokenized separately, so that the border between them is exact and generation sees the same
  // prompt ids.
  const bool split = request_.tokenizer_options.split_special_tokens;
  std::vector<int32_t> front = tokenizer_.encode_input(prompt, split);
  const std::vector<int32_t> back = ended(tokenizer_.encode(response, split));
  const size_t length = front.size() + back.size();
  sample.truncated = length > max_length_tokens_;
  if (sample.truncated) {
    const size_t kept = tokenizer_.front_ids().size();  // a bos token before every text stays
    const size_t excess = std::min(length - max_length_tokens_, front.size() - kept);
    const auto first = front.begin() + static_cast<int64_t>(kept);
    front.erase(first, first + static_cast<int64_t>(excess));
  }
  sample.prompt_tokens = request_.loss_on_prompt ? 0 : static_cast<int32_t>(front.size());
  sample.ids = std::move(front);
  sample.ids.insert(sample.ids.end(), back.begin(), back.end());
  truncate(sample);
}

std::string SampleMaker::make_target(const Cell& cell, int64_t line, Labels& labels, Sample& sample) const {
  if (request_.task == Task::kRegression) return make_values(cell, sample);
  return request_.task == Task::kMultiLabel ? make_labels(cell, line, labels, sample)
                                            : make_label(cell, line, labels, sample);
}

std::string SampleMaker::make_values(const Cell& cell, Sample& sample) const {
  const bool absent = cell.kind == Cell::Kind::kMissing || (cell.kind == Cell::Kind::kText && cell.text.empty());
  if (absent) return request_.require_labels ? fmt::format("no value for {}", core::quoted(columns_.back().name)) : "";
  std::vector<double> numbers = cell.numbers;
  if (cell.kind == Cell::Kind::kText) {
    for (const std::string& part : split(cell.text, request_.options.labels_separator)) {
      numbers.push_back(number_in(part));
    }
  }
  const auto fits = [](double number) { return std::isfinite(static_cast<float>(number)); };
  if (numbers.empty() || !std::all_of(numbers.begin(), numbers.end(), fits)) {
    return expected_but_found(columns_.back(), "a number or a list of numbers", cell);
  }
  sample.values.assign(numbers.begin(), numbers.end());
  return {};
}

std::string SampleMaker::make_label(const Cell& cell, int64_t line, Labels& labels, Sample& sample) const {
  const bool absent = cell.kind == Cell::Kind::kMissing || (cell.kind == Cell::Kind::kText && cell.text.empty());
  if (absent) return request_.require_labels ? fmt::format("no value for {}", core::quoted(columns_.back().name)) : "";
  const std::string& label = cell.kind == Cell::Kind::kOther ? cell.label : cell.text;
  if (label.empty()) {
    return expected_but_found(columns_.back(), "a label (a text, a whole number, true or false)", cell);
  }
  if (label.find('\0') != std::string::npos) return "the label holds a NUL character";
  sample.label = labels.number_of(label, line);
  return {};
}

std::string SampleMaker::make_labels(const Cell& cell, int64_t line, Labels& labels, Sample& sample) const {
  if (cell.kind == Cell::Kind::kMissing) {
    return request_.require_labels ? fmt::format("no value for {}", core::quoted(columns_.back().name)) : "";
  }
  if (cell.kind != Cell::Kind::kList && cell.kind != Cell::Kind::kText) {
    std::string complaint = expected_but_found(columns_.back(), "a list of labels", cell);
    if (cell.kind == Cell::Kind::kOther) complaint += std::string("; ") + kOneHot;
    return complaint;
  }
  sample.multi_labels.emplace();
  const auto names = cell.kind == Cell::Kind::kList ? cell.items : split(cell.text, request_.options.labels_separator);
  const auto count = [&](const char* name) { return std::count(names.begin(), names.end(), name); };
  if (names.size() > 1 && static_cast<size_t>(count("0") + count("1")) == names.size()) {
    if (names.size() > 2 || count("0") != 1) {
      return fmt::format("\"{}\": names {} twice in [{}]; {}", columns_.back().name, count("0") > 1 ? 0 : 1,
                         fmt::join(names, ", "), kOneHot);
    }
    sample.zeros_and_ones = names.size();
  }
  for (const std::string& name : names) {
    if (name.empty()) return "one of the labels is empty";
    if (name.find('\0') != std::string::npos) return "a label holds a NUL character";
    sample.multi_labels->push_back(labels.number_of(name, line));
  }
  return {};
}

}  // namespace neoloom::data
