// SPDX-License-Identifier: Apache-2.0
#include "launch/job/column_roles.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "launch/job/chat_column.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using data::Cell;
using Names = std::vector<std::string>;
using Pair = std::pair<std::string_view, std::string_view>;

constexpr auto kTexts = std::to_array<std::string_view>(
    {"text",    "sentence", "content", "review",   "message",  "comment",   "tweet",
     "body",    "document", "article", "question", "headline", "title",     "description",
     "context", "sms",      "email",   "post",     "query",    "utterance", "input"});
constexpr auto kLabels = std::to_array<std::string_view>(
    {"label", "labels",   "class",  "category",   "target",     "sentiment", "emotion", "intent",
     "topic", "genre",    "genres", "tags",       "categories", "classes",   "score",   "rating",
     "stars", "polarity", "grade",  "similarity", "toxicity",   "spam",      "is_spam", "y"});
/// Names under which many different whole numbers are measurements, not classes.
constexpr auto kMeasured = std::to_array<std::string_view>(
    {"score", "rating", "stars", "grade", "similarity", "toxicity", "polarity", "target", "y"});
constexpr auto kTextPairs = std::to_array<Pair>({{"sentence1", "sentence2"},
                                                 {"premise", "hypothesis"},
                                                 {"question1", "question2"},
                                                 {"text1", "text2"},
                                                 {"text_a", "text_b"},
                                                 {"sentence_a", "sentence_b"},
                                                 {"question", "answer"},
                                                 {"question", "sentence"},
                                                 {"question", "passage"},
                                                 {"question", "context"},
                                                 {"query", "document"},
                                                 {"query", "passage"},
                                                 {"text", "text_pair"},
                                                 {"claim", "evidence"}});
/// The first ones are prompts whatever else the file has, the others only in a file without a label.
constexpr auto kSurePrompts = std::to_array<Pair>(
    {{"prompt", "response"}, {"prompt", "completion"}, {"prompt", "answer"}, {"instruction", "response"}});
constexpr auto kPrompts = std::to_array<Pair>({{"question", "answer"},
                                               {"question", "response"},
                                               {"query", "response"},
                                               {"query", "answer"},
                                               {"input", "output"},
                                               {"input", "target"},
                                               {"source", "target"},
                                               {"document", "summary"},
                                               {"article", "summary"},
                                               {"article", "highlights"},
                                               {"text", "summary"},
                                               {"dialogue", "summary"}});

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

template <typename List>
bool holds(const List& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::optional<double> number_of(const Cell& cell) {
  if (cell.kind != Cell::Kind::kText)
    return cell.numbers.size() == 1 && cell.kind != Cell::Kind::kList ? std::optional(cell.numbers[0]) : std::nullopt;
  double value = 0.0;
  const char* const end = cell.text.data() + cell.text.size();
  const auto [stop, code] = std::from_chars(cell.text.data(), end, value);
  return code == std::errc() && stop == end ? std::optional(value) : std::nullopt;
}

/// What the sample shows of one column.
struct Facts {
  std::string name;
  int64_t filled = 0;   // cells with a value
  int64_t texts = 0;    // of these: texts that are no numbers
  int64_t numbers = 0;  // single numbers
  int64_t lists = 0;
  bool fractions = false;                   // a number, or one of a list, is not whole
  bool all_numbers = true;                  // the items of all lists are numbers
  bool flags = true;                        // ... 0 or 1
  size_t shortest = SIZE_MAX, longest = 0;  // items of a list
  double bytes = 0;                         // of all texts
  int64_t blank_begin = 0, blank_end = 0;   // texts that begin, or end, in white space
  std::map<std::string, int64_t> values;    // of single ones, with their counts
  double mean_bytes() const { return texts == 0 ? 0.0 : bytes / static_cast<double>(texts); }
  bool is_text() const { return texts * 10 >= filled * 9 && texts > 0; }
  /// The same for a column with the name of one: some texts are numbers.
  bool may_be_text() const { return texts * 2 >= filled && texts > 0; }
  bool is_numeric() const { return numbers == filled && filled > 0; }
  bool is_list() const { return lists == filled && filled > 0; }
  auto distinct() const { return static_cast<int64_t>(values.size()); }
  /// Whether so few values repeat so often that they may be labels.
  bool has_few_values() const { return distinct() <= 2 || distinct() * 2 <= filled; }
};

void add_list(const Cell& cell, Facts& facts) {
  const size_t items = std::max(cell.items.size(), cell.numbers.size());
  ++facts.lists;
  facts.shortest = std::min(facts.shortest, items);
  facts.longest = std::max(facts.longest, items);
  facts.all_numbers = facts.all_numbers && cell.numbers.size() == items;
  for (const double value : cell.numbers) {
    facts.fractions = facts.fractions || value != std::floor(value);
    facts.flags = facts.flags && (value == 0.0 || value == 1.0);
  }
}

void add_cell(const Cell& cell, Facts& facts) {
  if (cell.kind == Cell::Kind::kMissing || (cell.kind == Cell::Kind::kText && cell.text.empty())) return;
  ++facts.filled;
  if (cell.kind == Cell::Kind::kList || cell.numbers.size() > 1) return add_list(cell, facts);
  const std::optional<double> number = number_of(cell);
  if (number) {
    ++facts.numbers;
    facts.fractions = facts.fractions || *number != std::floor(*number);
  } else if (cell.kind == Cell::Kind::kText) {
    ++facts.texts;
    facts.bytes += static_cast<double>(cell.text.size());
    facts.blank_begin += std::isspace(static_cast<unsigned char>(cell.text.front())) != 0 ? 1 : 0;
    facts.blank_end += std::isspace(static_cast<unsigned char>(cell.text.back())) != 0 ? 1 : 0;
  }
  const bool fraction = cell.kind == Cell::Kind::kOther && cell.label.empty() && number;
  ++facts.values[fraction ? fmt::format("{}", *number) : cell.kind == Cell::Kind::kOther ? cell.label : cell.text];
}

std::vector<Facts> facts_of(const data::FileSample& sample) {
  std::vector<Facts> all(sample.columns.size());
  for (size_t k = 0; k < all.size(); ++k) {
    all[k].name = sample.columns[k];
    for (const data::Row& row : sample.rows) add_cell(row.cells[k], all[k]);
  }
  return all;
}

/// "1 row", "2 rows".
std::string counted(int64_t number, std::string_view noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

/// "ham 30, spam 12, and 3 more"
std::string counts_of(const Facts& facts) {
  constexpr size_t kShown = 6;
  std::vector<std::string> parts;
  for (const auto& [value, count] : facts.values) {
    if (parts.size() < kShown) parts.push_back(fmt::format("{} {}", core::quoted(value, 30), count));
  }
  const size_t more = facts.values.size() - parts.size();
  return fmt::format("{}{}", fmt::join(parts, ", "), more == 0 ? "" : fmt::format(" and {} more", more));
}

class Guesser {
 public:
  Guesser(const data::FileSample& sample, std::string task_type)
      : sample_(sample), task_type_(std::move(task_type)), facts_(facts_of(sample)) {}

  ColumnRoles roles() {
    const bool may_classify = task_type_ != "CAUSAL_LM";
    const bool may_write = task_type_ != "SEQ_CLS";
    const bool done = (may_write && (take_chats() || take_prompts(kSurePrompts))) || (may_classify && take_label()) ||
                      (may_write && take_prompts(kPrompts));
    core::require(done || task_type_ != "SEQ_CLS", core::ErrorKind::kData,
                  "{}: SEQ_CLS needs a label, but none of its columns looks like one; its columns are: {}{}",
                  sample_.options.train.text(), core::quoted_list(sample_.columns), repeated("; "));
    if (!done) take_text_alone();
    note_rows();
    return std::move(roles_);
  }

 private:
  const Facts* find(std::string_view name) const {
    const auto same = [&](const Facts& facts) { return lower(facts.name) == name && facts.filled > 0; };
    const auto found = std::find_if(facts_.begin(), facts_.end(), same);
    return found == facts_.end() ? nullptr : &*found;
  }

  /// Takes the first column of chats, `messages` before others.
  bool take_chats() {
    std::optional<ChatColumn> found;
    for (size_t k = 0; k < sample_.columns.size(); ++k) {
      const bool first_choice = sample_.columns[k] == "messages";
      if (found && !first_choice) continue;
      if (std::optional<ChatColumn> chats = look_for_chats(sample_, k)) found = std::move(chats);
      if (found && first_choice) break;
    }
    if (!found) return false;
    roles_.messages = found->name;
    roles_.chat_template = found->form;
    roles_.task_reason = fmt::format("chats in the column {}", core::quoted(found->name));
    if (!found->note.empty()) roles_.notes.push_back(found->note);
    return true;
  }

  bool take_prompts(std::span<const Pair> known) {
    const Facts* const instruction = find("instruction");
    const Facts* const output = find("output");
    const auto exact = [](const Facts* facts) { return facts != nullptr && facts->may_be_text(); };
    if (exact(instruction) && exact(output) && instruction->name == "instruction" && output->name == "output") {
      roles_.prompt_template = "alpaca";
      roles_.task_reason = fmt::format("columns instruction{} and output", find("input") == nullptr ? "" : ", input");
      return true;
    }
    for (const auto& [prompt, response] : known) {
      const Facts* const first = find(prompt);
      const Facts* const second = find(response);
      if (!exact(first) || !exact(second)) continue;
      roles_.prompt = first->name;
      roles_.response = second->name;
      roles_.brings_separators = first->blank_end * 2 > first->texts || second->blank_begin * 2 > second->texts;
      roles_.task_reason = fmt::format("columns {} and {}", core::quoted(first->name), core::quoted(second->name));
      return true;
    }
    return false;
  }

  /// Takes the first column whose name and values are those of a label.
  bool take_label() {
    for (const std::string_view name : kLabels) {
      if (const Facts* const facts = find(name); facts != nullptr && take_label(*facts, name)) return true;
    }
    for (const Facts& facts : facts_) {  // "airline_sentiment": the last word is such a name
      const std::string name = lower(facts.name);
      const std::string last = name.substr(name.find_last_of("_- .") + 1);
      if (facts.filled > 0 && last.size() < name.size() && holds(kLabels, last) && take_label(facts, last)) return true;
    }
    if (sample_.options.header || task_type_ == "SEQ_CLS") return false;
    const Facts* only = nullptr;  // without names, one column of few short values beside a text
    for (const Facts& facts : facts_) {
      constexpr int64_t kMost = 50;
      if (!facts.has_few_values() || facts.distinct() > kMost || facts.distinct() < 2 || facts.mean_bytes() > 40)
        continue;
      if (only != nullptr) return false;
      only = &facts;
    }
    return only != nullptr && take_label(*only, "");
  }

  /// `known`: the name that says that it is a label; empty: its values do.
  bool take_label(const Facts& facts, std::string_view known) {
    const std::string reason = known.empty() ? "the only column of few values" : "its name";
    if (facts.is_list()) return take_list(facts, reason);
    if (facts.values.contains("")) return false;  // objects
    if (facts.fractions && facts.is_numeric()) return take_numbers(facts, reason, "its values are fractions", 1);
    constexpr int64_t kMostClasses = 20;
    if (facts.is_numeric() && facts.distinct() > kMostClasses && (holds(kMeasured, known) || !facts.has_few_values()))
      return take_numbers(facts, reason, fmt::format("{} different numbers", facts.distinct()), 1);
    if (const std::string separator = separator_of(facts); !separator.empty()) {
      roles_.labels = facts.name;
      roles_.labels_separator = separator == "|" ? "" : separator;
      return take_classes(core::Task::kMultiLabel, fmt::format("{}; values are joined by \"{}\"", reason, separator));
    }
    if (!facts.has_few_values() || facts.mean_bytes() > 100) return false;
    roles_.label = facts.name;
    return take_classes(core::Task::kSingleLabel,
                        fmt::format("{}; {} in {}: {}", reason, counted(facts.distinct(), "different value"),
                                    counted(facts.filled, "row"), counts_of(facts)),
                        &facts);
  }

  bool take_list(const Facts& facts, const std::string& reason) {
    if (facts.all_numbers && facts.fractions) {
      return take_numbers(facts, reason, "lists of fractions", static_cast<int64_t>(facts.longest));
    }
    core::require(!facts.all_numbers || !facts.flags || facts.shortest != facts.longest || facts.longest < 2,
                  core::ErrorKind::kData,
                  "{}: the lists of {} have {} items, all 0 or 1: one flag a label. neoloom reads lists of the labels "
                  "themselves, such as [\"a\", \"c\"] for [1, 0, 1]; convert the column",
                  sample_.options.train.text(), core::quoted(facts.name), facts.longest);
    core::require(facts.longest > 0, core::ErrorKind::kData,
                  "{}: the lists of {} in the first {} are all empty: expected labels in some of them. Fill them in, "
                  "or take the column away to train on the texts alone",
                  sample_.options.train.text(), core::quoted(facts.name), counted(facts.filled, "row"));
    roles_.labels = facts.name;
    return take_classes(core::Task::kMultiLabel, reason + "; its values are lists");
  }

  bool take_numbers(const Facts& facts, const std::string& reason, const std::string& what, int64_t values) {
    (values > 1 ? roles_.labels : roles_.label) = facts.name;
    roles_.values = values;
    return take_classes(core::Task::kRegression, fmt::format("{}; {}", reason, what));
  }

  bool take_classes(core::Task task, std::string reason, const Facts* single = nullptr) {
    roles_.task = task;
    roles_.label_reason = std::move(reason);
    const std::string& column = roles_.label.empty() ? roles_.labels : roles_.label;
    roles_.task_reason = fmt::format("the label column {}", core::quoted(column));
    if (single != nullptr && single->distinct() == 1) {
      roles_.notes.push_back(fmt::format("column {} has one value in the first {}; is the file sorted by it?",
                                         core::quoted(column), counted(single->filled, "row")));
    }
    note_missing(column);
    take_texts();
    return true;
  }

  void take_texts() {
    for (const auto& [first, second] : kTextPairs) {
      const Facts* const one = find(first);
      const Facts* const two = find(second);
      if (one == nullptr || two == nullptr || !one->may_be_text() || !two->may_be_text() || is_label(*one) ||
          is_label(*two))
        continue;
      roles_.text = one->name;
      roles_.text_pair = two->name;
      roles_.text_reason = "the names of a pair of texts";
      return;
    }
    take_text();
  }

  void take_text() {
    for (const std::string_view name : kTexts) {
      const Facts* const facts = find(name);
      if (facts == nullptr || !facts->may_be_text() || is_label(*facts)) continue;
      roles_.text = facts->name;
      roles_.text_reason = sample_.format == data::Format::kText ? "the lines of a text file" : "its name";
      return;
    }
    const Facts* best = nullptr;
    for (const Facts& facts : facts_) {
      if (!facts.is_text() || is_label(facts)) continue;
      if (best == nullptr || facts.mean_bytes() > best->mean_bytes()) best = &facts;
    }
    core::require(best != nullptr, core::ErrorKind::kData, "{}: no column holds texts{}; its columns are: {}{}",
                  sample_.options.train.text(), roles_.task_reason.empty() ? "" : " beside " + roles_.task_reason,
                  core::quoted_list(sample_.columns), repeated("; "));
    roles_.text = best->name;
    roles_.text_reason = fmt::format("the longest texts: {:.0f} bytes on average", best->mean_bytes());
  }

  void take_text_alone() {
    take_text();
    roles_.task_reason = task_type_.empty() ? "no label column, no prompts" : "peft_config.task_type " + task_type_;
    for (const Facts& facts : facts_) {
      constexpr int64_t kMost = 20;
      const bool likely = facts.distinct() > 1 && facts.distinct() <= kMost && facts.distinct() * 10 <= facts.filled;
      if (!likely || facts.name == roles_.text) continue;
      roles_.notes.push_back(
          fmt::format("column {0} has {1} values ({2}); if it is the label, set "
                      "data.label_column: {0} and peft_config.task_type: SEQ_CLS",
                      core::quoted(facts.name), facts.distinct(), counts_of(facts)));
    }
  }

  /// Returns what joins several labels in the column's texts; empty: nothing does. Then a part stands in several
  /// values, alone or beside others.
  static std::string separator_of(const Facts& facts) {
    for (const std::string_view separator : {"|", ";", ", ", ","}) {
      int64_t joined = 0, parts = 0, most_values = 0;
      size_t longest = 0;
      std::map<std::string, int64_t> values_with;
      for (const auto& [value, count] : facts.values) {
        if (value.find(separator) != std::string::npos) joined += count;
        for (size_t begin = 0; begin <= value.size();) {
          const size_t end = std::min(value.find(separator, begin), value.size());
          longest = std::max(longest, end - begin);
          parts += count;
          most_values = std::max(most_values, ++values_with[value.substr(begin, end - begin)]);
          begin = end + separator.size();
        }
      }
      constexpr size_t kLongestName = 40;
      const auto names = static_cast<int64_t>(values_with.size());
      if (joined * 10 >= facts.filled && most_values > 1 && names * 2 <= parts && longest <= kLongestName) {
        return std::string(separator);
      }
    }
    return "";
  }

  bool is_label(const Facts& facts) const { return facts.name == roles_.label || facts.name == roles_.labels; }

  /// Says, after `before`, which names stand more than once; empty: none does.
  std::string repeated(const std::string& before) const {
    if (sample_.repeated.empty()) return "";
    return fmt::format("{}more than one column has the name {}, so neoloom reads none of them: give each its own name",
                       before, core::quoted_list(sample_.repeated));
  }

  void note_missing(const std::string& column) {
    const auto same = [&](const Facts& facts) { return facts.name == column; };
    const Facts& facts = *std::find_if(facts_.begin(), facts_.end(), same);
    const auto missing = static_cast<int64_t>(sample_.rows.size()) - facts.filled;
    if (missing == 0 || roles_.task == core::Task::kMultiLabel) return;
    const auto rows = static_cast<int64_t>(sample_.rows.size());
    const std::string share = fmt::format("{} of the first {}", missing, counted(rows, "row"));
    roles_.label_reason += fmt::format("; {} have no value, which ends the run: see the note", share);
    roles_.notes.push_back(
        fmt::format("{} have no value in {}, which ends the run: fill them in, or leave such rows out with "
                    "data.invalid_data_tolerance_percent: {}",
                    share, core::quoted(column), 100 * missing / rows + 1));
  }

  void note_rows() {
    Names unused;
    for (const Facts& facts : facts_) {
      const bool in_template =
          !roles_.prompt_template.empty() && holds(Names{"instruction", "input", "output"}, facts.name);
      const Names used = {roles_.text,   roles_.text_pair, roles_.label,   roles_.labels,
                          roles_.prompt, roles_.response,  roles_.messages};
      if (!in_template && !holds(used, facts.name)) unused.push_back(facts.name);
    }
    if (!sample_.repeated.empty()) roles_.notes.push_back(repeated(""));
    if (!unused.empty()) roles_.notes.push_back("columns that are not used: " + core::quoted_list(unused));
    if (sample_.unreadable == 0) return;
    const auto tried = static_cast<int64_t>(sample_.rows.size()) + sample_.unreadable;
    roles_.notes.push_back(
        fmt::format("{} of the first {} cannot be read (the first: {}); correct them, or leave "
                    "such rows out with data.invalid_data_tolerance_percent",
                    sample_.unreadable, counted(tried, "row"), sample_.first_problem));
  }

  const data::FileSample& sample_;
  std::string task_type_;
  std::vector<Facts> facts_;
  ColumnRoles roles_;
};

}  // namespace

ColumnRoles guess_roles(const data::FileSample& sample, const std::string& task_type) {
  return Guesser(sample, task_type).roles();
}

}  // namespace neoloom::launch
