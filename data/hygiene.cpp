// SPDX-License-Identifier: Apache-2.0
#include "data/hygiene.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "data/store/windows.h"
#include "runtime/core/hash.h"
#include "runtime/core/text.h"

namespace neoloom::data {
namespace {

/// The tokens and the labels of a sample, as hashes.
struct Key {
  uint64_t tokens = 0;
  uint32_t labels = 0;
  uint32_t sample = 0;
};

uint32_t label_key(const TokenStore& store, Task task, int64_t sample) {
  if (task == Task::kSingleLabel) return static_cast<uint32_t>(store.label(sample));
  if (task == Task::kRegression) {
    const auto values = store.values(sample);
    return static_cast<uint32_t>(core::xxh3(values.data(), values.size_bytes()));
  }
  if (task != Task::kMultiLabel) return 0;
  const auto set = store.multi_label(sample);
  return static_cast<uint32_t>(core::xxh3(set.data(), set.size_bytes()));
}

// Returns the keys of all samples, those with equal tokens beside each other, in their order in the file.
std::vector<Key> sorted_keys(const TokenStore& store, Task task) {
  std::vector<Key> keys(static_cast<size_t>(store.packs()));
  for (size_t i = 0; i < keys.size(); ++i) {
    const int64_t first = store.pack_begin(static_cast<int64_t>(i));
    const int64_t end = store.pack_begin(static_cast<int64_t>(i) + 1);
    // The same ids with another border between prompt and response are another sample.
    auto hash = static_cast<uint64_t>(store.prompt_tokens(first));
    for (int64_t sample = first; sample < end; ++sample) {
      const auto ids = store.ids(sample);
      hash = core::xxh3(ids.data(), ids.size_bytes(), hash);
    }
    keys[i] = {hash, label_key(store, task, first), static_cast<uint32_t>(i)};
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    return a.tokens != b.tokens ? a.tokens < b.tokens : a.sample < b.sample;
  });
  return keys;
}

void compare_samples(const std::vector<Key>& keys, FileHygiene& file) {
  for (size_t begin = 0, end = 0; begin < keys.size(); begin = end) {
    bool contradicts = false;
    for (end = begin + 1; end < keys.size() && keys[end].tokens == keys[begin].tokens; ++end) {
      const SamplePair pair{keys[begin].sample, keys[end].sample};
      ++file.repeated;
      if (!file.repeated_example) file.repeated_example = pair;
      if (keys[end].labels == keys[begin].labels) continue;
      contradicts = true;
      if (!file.contradictory_example) file.contradictory_example = pair;
    }
    file.contradictory_texts += contradicts ? 1 : 0;
  }
}

constexpr std::string_view kBlanks = " \t\n\v\f\r";

/// How many tokens are not white space.
int64_t not_blank(std::span<const int32_t> ids, const EmptyTokens& empty) {
  return std::count_if(ids.begin(), ids.end(), [&](int32_t id) {
    const auto token = static_cast<size_t>(id);
    return token >= empty.blank.size() || !empty.blank[token];
  });
}

void measure_lengths(const TokenStore& store, FileHygiene& file) {
  std::vector<int32_t> lengths(store.lengths().begin(), store.lengths().end());
  std::sort(lengths.begin(), lengths.end());
  const auto percentile = [&](double q) {
    const double rank = std::ceil(q / 100.0 * static_cast<double>(lengths.size()));
    return lengths[static_cast<size_t>(std::max(rank, 1.0)) - 1];
  };
  file.median = percentile(50);
  file.percentile_90 = percentile(90);
  file.percentile_95 = percentile(95);
  file.percentile_99 = percentile(99);
  file.longest = lengths.back();
}

FileHygiene inspect_file(const TokenStore& store, Task task, const EmptyTokens& empty, const std::vector<Key>& keys) {
  FileHygiene file;
  file.samples = store.packs();
  file.windows = window_summary(store);
  file.truncated = store.truncated_samples();
  measure_lengths(store, file);
  if (task != Task::kCausalLm) file.empty = empty_texts(store, empty);
  file.empty_prompts = empty_prompts(store, empty);
  file.empty_responses = empty_responses(store, empty);
  file.cut_responses = cut_responses(store, empty);
  compare_samples(keys, file);
  const bool labels = task == Task::kSingleLabel || task == Task::kMultiLabel;
  if (labels) file.label_samples = label_counts(store, task);
  return file;
}

void find_shared(const std::vector<Key>& train, const std::vector<Key>& validation, Hygiene& hygiene) {
  size_t at = 0;
  for (const Key& key : validation) {
    while (at < train.size() && train[at].tokens < key.tokens) ++at;
    if (at == train.size()) return;
    if (train[at].tokens != key.tokens) continue;
    ++hygiene.shared;
    if (!hygiene.shared_example) hygiene.shared_example = SamplePair{key.sample, train[at].sample};
  }
}

double percent(int64_t part, int64_t whole) { return 100.0 * static_cast<double>(part) / static_cast<double>(whole); }

std::string example(const std::optional<SamplePair>& pair, const char* of_first = "", const char* of_second = "") {
  return pair ? fmt::format("for example rows {}{} and {}{}", pair->first + 1, of_first, pair->second + 1, of_second)
              : "";
}

/// Collects the lines of a report.
class Report {
 public:
  void file(const char* name, const FileHygiene& file) {
    std::string cut = fmt::format("{:.3g} % of {} rows were cut", percent(file.truncated, file.samples), file.samples);
    if (file.truncated > 0) {
      const bool has_labels = !file.label_samples.empty();  // and so may have windows
      cut += fmt::format(" (see tokenizer_config.max_length{})", has_labels ? ", return_overflowing_tokens" : "");
    }
    add(name, fmt::format("tokens a {}: median {}, 90 % at most {}, 95 % {}, 99 % {}, longest {}; {}",
                          file.windows.empty() ? "row" : "window", file.median, file.percentile_90, file.percentile_95,
                          file.percentile_99, file.longest, file.windows.empty() ? cut : file.windows));
    if (file.cut_responses > 0) {
      found_.back().text += fmt::format("; {} response{} lost {} end", file.cut_responses,
                                        file.cut_responses == 1 ? "" : "s", file.cut_responses == 1 ? "its" : "their");
    }
    if (file.repeated > 0) {
      warn(name, fmt::format("{} of {} rows repeat the text of an earlier one ({})", file.repeated, file.samples,
                             example(file.repeated_example)));
    }
    if (file.contradictory_texts > 0) {
      warn(name, fmt::format("{} text{} with more than one {} ({})", file.contradictory_texts,
                             file.contradictory_texts == 1 ? " comes" : "s come",
                             file.label_samples.empty() ? "value" : "label", example(file.contradictory_example)));
    }
  }

  void empty(const char* name, const FileHygiene& file) {
    for (const auto& [count, what] :
         {std::pair{file.empty, "texts"}, {file.empty_prompts, "prompts"}, {file.empty_responses, "responses"}}) {
      if (count > 0) warn(name, fmt::format("{} of {} {} are empty or white space", count, file.samples, what));
    }
  }

  void labels(const char* name, const FileHygiene& file, const std::vector<std::string>& names) {
    std::vector<std::string> few, none;
    for (size_t k = 0; k < file.label_samples.size(); ++k) {
      if (file.label_samples[k] == 0) none.push_back(names.at(k));
      if (file.label_samples[k] > 0 && file.label_samples[k] < kFewRows) few.push_back(names.at(k));
    }
    if (!few.empty()) warn(name, fmt::format("labels with fewer than {} rows: {}", kFewRows, core::quoted_list(few)));
    if (!none.empty()) warn(name, fmt::format("labels without a row: {}", core::quoted_list(none)));
  }

  void shared(const Hygiene& hygiene) {
    if (hygiene.shared == 0) return;
    warn("validation data",
         fmt::format("{} of {} rows stand in the training data, too ({}): metrics on them do not show what the model "
                     "makes of new texts",
                     hygiene.shared, hygiene.validation->samples,
                     example(hygiene.shared_example, " of validation", " of training")));
  }

  std::vector<Finding> take() { return std::move(found_); }

 private:
  void add(const char* name, std::string text) { found_.push_back({name, std::move(text), false}); }
  void warn(const char* name, std::string text) { found_.push_back({name, std::move(text), true}); }
  std::vector<Finding> found_;
};

}  // namespace

std::vector<bool> blank_tokens(const Tokenizer& tokenizer) {
  std::vector<bool> blank(static_cast<size_t>(tokenizer.vocab_size()));
  for (size_t id = 0; id < blank.size(); ++id) {
    const std::string bytes = tokenizer.token_bytes(static_cast<int32_t>(id));
    blank[id] = !bytes.empty() && bytes.find_first_not_of(kBlanks) == std::string::npos;
  }
  return blank;
}

int64_t empty_texts(const TokenStore& store, const EmptyTokens& empty) {
  int64_t count = 0;
  for (int64_t row = 0; row < store.packs(); ++row) {
    bool found = false;
    for (int64_t sample = store.pack_begin(row); sample < store.pack_begin(row + 1) && !found; ++sample) {
      found = not_blank(store.ids(sample), empty) > empty.text;
    }
    count += found ? 0 : 1;
  }
  return count;
}

int64_t empty_prompts(const TokenStore& store, const EmptyTokens& empty) {
  if (!empty.prompts) return 0;
  int64_t count = 0;
  for (int64_t row = 0; row < store.size(); ++row) {
    if (store.truncated(row)) continue;
    const auto prompt = store.ids(row).first(static_cast<size_t>(store.prompt_tokens(row)));
    count += not_blank(prompt, empty) <= empty.text ? 1 : 0;
  }
  return count;
}

int64_t empty_responses(const TokenStore& store, const EmptyTokens& empty) {
  if (empty.response_end < 0 || empty.loss_on_prompt) return 0;
  int64_t count = 0;
  for (int64_t row = 0; row < store.size(); ++row) {
    const auto response = store.ids(row).subspan(static_cast<size_t>(store.prompt_tokens(row)));
    const bool whole = !response.empty() && response.back() == empty.response_end;
    count += whole && not_blank(response, empty) == 1 ? 1 : 0;
  }
  return count;
}

int64_t cut_responses(const TokenStore& store, const EmptyTokens& empty) {
  if (empty.response_end < 0) return 0;
  int64_t count = 0;
  for (int64_t row = 0; row < store.size(); ++row) {
    if (!store.truncated(row) || store.target_counts()[static_cast<size_t>(row)] == 0) continue;
    const auto ids = store.ids(row);
    const auto spans = store.target_spans(row);
    const bool ends_in_response = spans.empty() || spans.back() == std::ssize(ids);
    count += ends_in_response && ids.back() != empty.response_end ? 1 : 0;
  }
  return count;
}

BlankBorders blank_borders(const TokenStore& store, const Tokenizer& tokenizer) {
  const auto blank = [](char c) { return kBlanks.find(c) != std::string_view::npos; };
  BlankBorders found;
  for (int64_t row = 0; row < store.size(); ++row) {
    const auto ids = store.ids(row);
    const auto border = static_cast<size_t>(store.prompt_tokens(row));
    std::string end;  // of the prompt, with the line break
    for (size_t i = border - std::min<size_t>(border, 2); i < border; ++i) end += tokenizer.token_bytes(ids[i]);
    found.prompts += end.size() > 1 && blank(end[end.size() - 2]) ? 1 : 0;
    if (border == 0 || border >= ids.size()) continue;
    const std::string begin = tokenizer.token_bytes(ids[border]);
    found.responses += !begin.empty() && blank(begin.front()) ? 1 : 0;
  }
  return found;
}

std::vector<int64_t> label_counts(const TokenStore& store, Task task) {
  std::vector<int64_t> counts(store.label_names().size(), 0);
  for (int64_t row = 0; row < store.packs(); ++row) {
    const int64_t sample = store.pack_begin(row);
    if (task == Task::kMultiLabel) {
      const auto set = store.multi_label(sample);
      for (size_t k = 0; k < set.size(); ++k) counts[k] += set[k];
    } else if (const int64_t label = store.label(sample); label >= 0) {
      ++counts[static_cast<size_t>(label)];
    }
  }
  return counts;
}

Hygiene inspect(const TokenStore& train, const TokenStore* validation, Task task, const EmptyTokens& empty) {
  Hygiene hygiene;
  const std::vector<Key> keys = sorted_keys(train, task);
  hygiene.train = inspect_file(train, task, empty, keys);
  if (validation == nullptr) return hygiene;
  const std::vector<Key> others = sorted_keys(*validation, task);
  hygiene.validation = inspect_file(*validation, task, empty, others);
  find_shared(keys, others, hygiene);
  return hygiene;
}

std::vector<Finding> findings(const Hygiene& hygiene, const std::vector<std::string>& label_names) {
  Report report;
  report.file("training data", hygiene.train);
  report.labels("training data", hygiene.train, label_names);
  if (!hygiene.validation) return report.take();
  report.file("validation data", *hygiene.validation);
  report.empty("validation data", *hygiene.validation);
  report.labels("validation data", *hygiene.validation, label_names);
  report.shared(hygiene);
  return report.take();
}

}  // namespace neoloom::data
