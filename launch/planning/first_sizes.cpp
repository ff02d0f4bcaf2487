// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/first_sizes.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <vector>

#include "launch/config/values.h"
#include "launch/job/inputs.h"
#include "launch/planning/memory_budget.h"
#include "launch/planning/scratch_folder.h"
#include "model/checkpoints/hub.h"
#include "model/checkpoints/hub_download.h"
#include "runtime/core/error.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

constexpr int64_t kDocumentTokens = 512;  // of a sample cut from a document
constexpr int64_t kUsualBatch = 8;        // Hugging Face's default, too

bool is_document(const data::FileSample& sample) { return sample.format == data::Format::kText; }

int64_t rounded_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Returns the q-th percentile: the smallest value that q % of the values do not exceed.
int64_t percentile(std::vector<int64_t> values, int64_t q) {
  std::sort(values.begin(), values.end());
  const auto count = static_cast<int64_t>(values.size());
  return values.at(static_cast<size_t>(std::max<int64_t>(0, (count * q + 99) / 100 - 1)));
}

std::string rows_of(const data::FileSample& sample) {
  return fmt::format("{} {} rows", sample.whole ? "all" : "the first", sample.rows.size());
}

/// Writes the rows as they are read: lines of text, or one object a line.
std::string write_sample(const std::string& folder, const data::FileSample& sample) {
  std::string path = folder + (is_document(sample) ? "/rows.txt" : "/rows.jsonl");
  std::ofstream out(path, std::ios::binary);
  for (const data::Row& row : sample.rows) {
    std::string line;
    for (size_t k = 0; k < row.cells.size(); ++k) {
      if (row.cells[k].kind == data::Cell::Kind::kMissing) continue;
      if (is_document(sample)) {
        line = row.cells[k].text;
      } else {
        line += fmt::format("{}{}: {}", line.empty() ? "{" : ", ", quoted_text(sample.columns[k]), row.cells[k].json);
      }
    }
    if (!is_document(sample)) line += line.empty() ? "{}" : "}";
    out << line << '\n';
  }
  out.close();
  core::require(out.good(), core::ErrorKind::kData, "cannot write to {}", path);
  return path;
}

/// Estimates without a tokenizer.
FirstSizes estimate(const RunConfig& config, const data::FileSample& sample, FirstSizes sizes) {
  constexpr double kBytesPerToken = 3.5;  // of English in GPT-2's vocabulary: about 4
  constexpr int64_t kTemplateTokens = 60;
  const data::Options& data = config.data;
  const std::vector<std::string> used = {data.text_column, data.text_pair_column, data.prompt_column,
                                         data.response_column, data.messages_column};
  std::vector<int64_t> lengths;
  for (const data::Row& row : sample.rows) {
    size_t bytes = 0;
    for (size_t k = 0; k < row.cells.size(); ++k) {
      const bool counts =
          (!data.prompt_template.empty() && data.messages_column.empty() && data.prompt_column.empty()) ||
          std::find(used.begin(), used.end(), sample.columns[k]) != used.end();
      // A chat is no text; its JSON is about as long as its text with headers.
      const data::Cell& cell = row.cells[k];
      if (counts) bytes += sample.columns[k] == data.messages_column ? cell.json.size() : cell.text.size();
    }
    lengths.push_back(static_cast<int64_t>(static_cast<double>(bytes) / kBytesPerToken) +
                      (data.prompt_template.empty() || !data.prompt_column.empty() ? 0 : kTemplateTokens));
  }
  sizes.samples = static_cast<int64_t>(sample.rows.size());
  if (is_document(sample)) {
    sizes.samples = std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) / kDocumentTokens;
  } else if (sizes.max_length == 0) {
    constexpr int64_t kMostPositions = 2048;  // of the published models
    const int64_t long_one = percentile(lengths, 99);
    sizes.max_length = std::clamp<int64_t>(rounded_up(long_one, 32), 32, kMostPositions);
    sizes.length_reason =
        fmt::format("estimated from bytes, as the model is not here: 99 % of {} have about {} tokens at most",
                    rows_of(sample), long_one);
  }
  sizes.measured = false;
  sizes.micro_batch_size = kUsualBatch;
  sizes.batch_reason = fmt::format(
      "the usual size; the model is not here, so its memory is not known "
      "(neoloom download {}, then neoloom plan)",
      config.model_config.pretrained_model_name);
  return sizes;
}

/// Measures with the model's tokenizer and shape.
class Measurement {
 public:
  Measurement(const RunConfig& config, const data::FileSample& sample, const core::BeginWork& show)
      : sample_(sample), show_(show) {
    inputs_.config = config;
    data::Options& data = inputs_.config.data;
    const data::Options plain;
    data.train = write_sample(folder_.path(), sample);
    data.validation.clear();
    data.validation_split = 0;
    data.format = plain.format;
    data.header = plain.header;
    data.quoting = plain.quoting;
    data.delimiter = plain.delimiter;
    data.encoding = plain.encoding;
    data.invalid_data_tolerance_percent = 100;
    read_inputs("neoloom init", inputs_);
  }

  void measure_length(FirstSizes& sizes) {
    const int64_t most = inputs_.base.config.max_position_embeddings;
    if (sizes.max_length > 0 || is_document(sample_)) {
      sizes.max_length = std::min(sizes.max_length, most);
      return;
    }
    const auto store = tokenised(most);
    const std::vector<int64_t> lengths(store->lengths().begin(), store->lengths().end());
    const int64_t long_one = percentile(lengths, 99);
    const int64_t longest = percentile(lengths, 100);
    sizes.max_length = std::min(rounded_up(long_one, 8), most);
    sizes.length_reason = fmt::format("99 % of {} have at most {} tokens, the longest has {}{}", rows_of(sample_),
                                      long_one, longest, longest == most ? " or more" : "");
  }

  void measure_batch(FirstSizes& sizes, int64_t threads) {
    const auto store = tokenised(sizes.max_length);
    sizes.samples = store->size();
    const model::DeviceTraits device = planned_device(inputs_.config);
    MemoryPlanInput question =
        memory_plan_input(inputs_.config, inputs_.task, inputs_.base, *store, {{"", store}}, device);
    question.setup.threads = threads;
    const MemoryBudget budget = measure_budget(inputs_.config, {.on_gpu = device.cuda}, /*ranks_per_node=*/1);
    question.process_bytes = budget.process_bytes;
    using train::AutoFlag;
    for (const AutoFlag recompute : {AutoFlag::kFalse, AutoFlag::kTrue}) {
      for (const int64_t samples : {kUsualBatch, kUsualBatch / 2, kUsualBatch / 4, int64_t{1}}) {
        question.batching = {samples, kFirstGlobalBatch / samples};
        question.eval_batch_size = samples;
        const MemoryDecision decision = decide_memory(question, recompute, budget.bytes);
        sizes.micro_batch_size = samples;
        sizes.batch_reason = reason(decision, budget, device.cuda);
        if (decision.fits) return;
      }
    }
    sizes.batch_reason = "too large even so: " + sizes.batch_reason;
  }

 private:
  static std::string reason(const MemoryDecision& decision, const MemoryBudget& budget, bool gpu) {
    if (budget.bytes == 0 && gpu)
      return fmt::format("a rank needs {} on its GPU, whose memory is not known before a start",
                         metrics::memory_text(decision.memory.total_bytes));
    return fmt::format("a rank needs {}{} of {}", metrics::memory_text(decision.memory.total_bytes),
                       decision.gradient_checkpointing ? " with gradient checkpointing" : "",
                       budget.bytes == 0
                           ? "memory that is not known"
                           : fmt::format("the {} that it may take here", metrics::memory_text(budget.bytes)));
  }

  std::shared_ptr<const data::TokenStore> tokenised(int64_t max_length) {
    inputs_.config.tokenizer_config.max_length = max_length;
    const data::StoreRequest request =
        store_request(inputs_.config, inputs_.task, inputs_.base, inputs_.config.data.train);
    const std::string path = fmt::format("{}/{}.h5", folder_.path(), max_length);
    data::TokenStore::build(request, *inputs_.tokenizer, path, show_);
    return in_packs(data::TokenStore::open(path), request);
  }

  const data::FileSample& sample_;
  const core::BeginWork& show_;
  ScratchFolder folder_;
  Inputs inputs_;
};

}  // namespace

FirstSizes first_sizes(const RunConfig& config, const data::FileSample& sample, int64_t threads,
                       const core::BeginWork& show) {
  FirstSizes sizes;
  sizes.max_length = config.tokenizer_config.max_length;
  if (sizes.max_length == 0 && is_document(sample)) {
    sizes.max_length = kDocumentTokens;
    sizes.length_reason = "a text file is one document, which is cut into samples of this many tokens";
  }
  const std::string& name = config.model_config.pretrained_model_name;
  if (model::is_local_path(name)) model::resolve_model_folder(name, "main");  // refuses a missing one
  if (!model::is_on_disk({name})) return estimate(config, sample, sizes);
  Measurement measurement(config, sample, show);
  measurement.measure_length(sizes);
  measurement.measure_batch(sizes, threads);
  return sizes;
}

}  // namespace neoloom::launch
