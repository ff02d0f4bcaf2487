// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/init.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/readers/file_sample.h"
#include "launch/config/draft.h"
#include "launch/config/from_trainer.h"
#include "launch/config/run_config.h"
#include "launch/config/values.h"
#include "launch/job/column_roles.h"
#include "launch/job/shown_progress.h"
#include "launch/planning/first_sizes.h"
#include "launch/system/placement.h"
#include "launch/system/shell_word.h"
#include "runtime/core/error.h"
#include "runtime/core/output.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

constexpr int64_t kSampledRows = 1000;
constexpr const char* kDefaultModel = "EleutherAI/gpt-neo-125m";
constexpr const char* kModel = "model_config";
constexpr const char* kPeft = "peft_config";
constexpr const char* kTokenizer = "tokenizer_config";
constexpr const char* kTrainer = "trainer_config";
constexpr const char* kData = "data";
constexpr const char* kRuntime = "runtime";

/// Makes a text fit into a comment.
std::string one_line(const std::string& text) {
  std::string line = core::printable(text, 500);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

/// "1 row", "2 rows".
std::string counted(int64_t number, std::string_view noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

/// Collects the new configuration and what to say about it.
class Beginning {
 public:
  explicit Beginning(const InitArguments& arguments) : arguments_(arguments) {
    if (!arguments.from.empty()) from_ = read_from_trainer(arguments.from);
    if (!arguments.data.empty()) look_at_data();
  }

  /// `show`: begins to show a piece of work.
  void fill(int64_t threads, const core::BeginWork& show) {
    add_model();
    add_adapter();
    if (!from_.has_trainer) add_recipe();
    for (const Draft::Line& line : from_.draft.lines()) draft_.set(line.group, line.key, line.value, line.why);
    if (from_.has_adapter && !draft_.has_group(kPeft)) draft_.set(kPeft, "r", "8");
    add_columns();
    const std::optional<FirstSizes> sizes = add_sizes(threads, show);
    add_validation(sizes);
  }

  /// The document. Reads back without a mistake.
  std::string yaml() const {
    const std::string source = arguments_.data.empty() ? fmt::format("{}", fmt::join(arguments_.from, ", "))
                                                       : data::Files(arguments_.data).text();
    std::string text = fmt::format(
        "# Written by neoloom init from {0}. Comments say why a key has its value; configs/README.md has every key.\n"
        "#   neoloom plan --config {1}      # counts, memory, time\n#   neoloom train --config {1}\n",
        one_line(source), one_line(shell_word(arguments_.output)));
    for (const std::string& note : notes_) text += fmt::format("# note: {}\n", one_line(note));
    text += draft_.yaml();
    for (const auto& left : from_.left_out) text += fmt::format("# {}\n", describe(left));
    parse_config(text, arguments_.output, {});
    return text;
  }

  /// The commands that come next, in one line.
  std::string next() const {
    const std::string fetch =
        missing_model_.empty() ? "" : fmt::format("neoloom download {}, then ", shell_word(missing_model_));
    return fmt::format("next: {0}neoloom plan --config {1}, then neoloom train --config {1}", fetch,
                       shell_word(arguments_.output));
  }

  /// What was assumed, from what evidence.
  std::string report() const {
    std::string text;
    size_t width = 0;
    for (const Draft::Line& line : draft_.lines()) width = std::max(width, named(line).size());
    constexpr size_t kWidest = 60;
    width = std::min(width, kWidest);
    for (const Draft::Line& line : draft_.lines()) {
      if (!line.why.empty()) text += fmt::format("{:<{}}  {}\n", named(line), width, line.why);
    }
    for (const std::string& note : notes_) text += fmt::format("note: {}\n", one_line(note));
    for (const auto& left : from_.left_out) text += fmt::format("{}\n", describe(left));
    return text;
  }

 private:
  static std::string named(const Draft::Line& line) {
    return fmt::format("{}.{}: {}", line.group, line.key, line.value);
  }
  static std::string describe(const FromTrainer::LeftOut& left) {
    return fmt::format("{}: {}: {} ({})", left.refused ? "refused" : "without effect", left.name, one_line(left.value),
                       one_line(left.reason));
  }

  void look_at_data() {
    sample_ = data::sample_file(arguments_.data, kSampledRows);
    const Draft::Line* const given = from_.draft.find(kPeft, "task_type");
    roles_ = guess_roles(*sample_, given == nullptr ? "" : given->value);
    notes_ = roles_->notes;
  }

  void add_model() {
    const bool given = !arguments_.model.empty();
    const std::string name = given ? arguments_.model : from_.base_model.empty() ? kDefaultModel : from_.base_model;
    const std::string why = given                      ? "--model"
                            : from_.base_model.empty() ? "the default; --model names another"
                                                       : "base_model_name_or_path of the adapter";
    draft_.set(kModel, "pretrained_model_name", to_text(name), why);
    if (!roles_ || roles_->task != core::Task::kRegression) return;
    draft_.set(kModel, "problem_type", "regression", roles_->label_reason);
    draft_.set(kModel, "num_labels", to_text(roles_->values), "numbers to predict for each row");
  }

  /// Whether the run trains an adapter.
  bool uses_lora() const { return from_.has_adapter || !from_.has_trainer; }

  void add_adapter() {
    if (!uses_lora()) {
      notes_.emplace_back("without an adapter_config.json every parameter is trained; a group peft_config trains LoRA");
      return;
    }
    if (roles_) {
      const bool classifies = roles_->task != core::Task::kCausalLm;
      draft_.set(kPeft, "task_type", classifies ? "SEQ_CLS" : "CAUSAL_LM", roles_->task_reason);
    }
    if (from_.has_adapter) return;
    draft_.set(kPeft, "r", "8");
    draft_.set(kPeft, "lora_alpha", "16");
    draft_.set(kPeft, "lora_dropout", "0.05");
    draft_.set(kPeft, "target_modules", "[q_proj, v_proj]");
  }

  /// The usual start of LoRA.
  void add_recipe() {
    const std::string name = arguments_.data.empty() ? "mine" : std::filesystem::path(arguments_.data).filename();
    std::string stem = name.substr(0, name.find('.'));
    std::replace_if(
        stem.begin(), stem.end(), [](unsigned char c) { return std::isalnum(c) == 0 && c != '_' && c != '-'; }, '_');
    draft_.set(kTrainer, "output_dir", to_text("runs/" + (stem.empty() ? "mine" : stem)));
    draft_.set(kTrainer, "num_train_epochs", "3");
    draft_.set(kTrainer, "learning_rate", "2.0e-4");
    draft_.set(kTrainer, "warmup_steps", "0.05");
  }

  void add_columns() {
    if (!sample_) {
      draft_.set(kData, "train", to_text(std::string("train.jsonl")),
                 "a placeholder for your file; neoloom init FILE --from ... guesses its format and columns");
      return;
    }
    const auto why = [&](const std::string& key) {
      const auto found = sample_->reasons.find(key);
      return found == sample_->reasons.end() ? "" : found->second;
    };
    const data::Options& found = sample_->options;
    const data::Options plain;
    draft_.set(kData, "train", to_text(found.train), format_name());
    if (found.format != plain.format) draft_.set(kData, "format", to_text(found.format), why("format"));
    if (found.encoding != plain.encoding) draft_.set(kData, "encoding", to_text(found.encoding), why("encoding"));
    if (!found.delimiter.empty()) draft_.set(kData, "delimiter", to_text(found.delimiter), why("delimiter"));
    if (!found.quoting) draft_.set(kData, "quoting", "false", why("quoting"));
    if (!found.header) draft_.set(kData, "header", "false", why("header"));
    const ColumnRoles& roles = *roles_;
    if (!roles.text.empty() && sample_->format != data::Format::kText)
      draft_.set(kData, "text_column", to_text(roles.text), roles.text_reason);
    if (!roles.text_pair.empty()) draft_.set(kData, "text_pair_column", to_text(roles.text_pair), roles.text_reason);
    if (!roles.label.empty()) draft_.set(kData, "label_column", to_text(roles.label), roles.label_reason);
    if (!roles.labels.empty()) draft_.set(kData, "labels_column", to_text(roles.labels), roles.label_reason);
    if (!roles.labels_separator.empty())
      draft_.set(kData, "labels_separator", to_text(roles.labels_separator), "between the labels of a row");
    if (!roles.prompt.empty()) draft_.set(kData, "prompt_column", to_text(roles.prompt), "its name");
    if (!roles.response.empty()) draft_.set(kData, "response_column", to_text(roles.response), "its name");
    if (!roles.response.empty() && roles.brings_separators) {
      draft_.set(kData, "template", data::kJoined, "prompts end in white space, or responses begin with it");
    } else if (!roles.response.empty()) {
      draft_.set(kData, "template", data::kNewline, "a line break between prompt and response");
    }
    if (!roles.messages.empty())
      draft_.set(kData, "messages_column", to_text(roles.messages), "its cells are lists of {role, content}");
    if (!roles.chat_template.empty())
      draft_.set(kData, "template", to_text(roles.chat_template), "a block for each role");
    if (!roles.prompt_template.empty())
      draft_.set(kData, "template", to_text(roles.prompt_template), roles.task_reason);
  }

  std::string format_name() const {
    using data::Format;
    const Format format = sample_->format;
    const char* const name = format == Format::kJsonLines   ? "JSON lines"
                             : format == Format::kJsonArray ? "a JSON array"
                             : format == Format::kCsv       ? "CSV"
                             : format == Format::kTsv       ? "TSV"
                             : format == Format::kText      ? "text"
                                                            : "Parquet";
    return fmt::format("{}, {}{}", name, sample_->whole ? "" : "more than ",
                       counted(static_cast<int64_t>(sample_->rows.size()) + sample_->unreadable, "row"));
  }

  std::optional<FirstSizes> add_sizes(int64_t threads, const core::BeginWork& show) {
    if (!sample_) return std::nullopt;
    // Evaluations need validation data, which are decided later.
    const RunConfig config = parse_config(draft_.yaml(), "neoloom init", {"data.validation_split=0.1"});
    const FirstSizes sizes = first_sizes(config, *sample_, threads, show);
    if (!sizes.measured) missing_model_ = config.model_config.pretrained_model_name;
    if (draft_.find(kTokenizer, "max_length") == nullptr)
      draft_.set(kTokenizer, "max_length", to_text(sizes.max_length), sizes.length_reason);
    if (from_.has_trainer) return sizes;
    draft_.set(kTrainer, "per_device_train_batch_size", to_text(sizes.micro_batch_size), sizes.batch_reason);
    draft_.set(kTrainer, "per_device_eval_batch_size", to_text(sizes.micro_batch_size));
    draft_.set(kRuntime, "global_batch_size", to_text(kFirstGlobalBatch), "samples of a step, on any number of ranks");
    return sizes;
  }

  void add_validation(const std::optional<FirstSizes>& sizes) {
    constexpr int64_t kFewest = 10;
    const bool enough = !sizes || sizes->samples >= kFewest || !sample_->whole;
    const bool evaluates = draft_.find(kTrainer, "eval_strategy") != nullptr ||
                           draft_.find(kTrainer, "eval_on_start") != nullptr || !from_.has_trainer;
    if (!arguments_.validation.empty()) {
      data::Files(arguments_.validation).expand();  // refuses a missing one
      draft_.set(kData, "validation", to_text(arguments_.validation), "--validation");
    } else if (evaluates && (enough || from_.has_trainer)) {
      draft_.set(kData, "validation_split", "0.1", "no --validation file: a tenth of the rows validates");
    } else if (!enough) {
      notes_.push_back(fmt::format("too few to hold some out, so that the run does not evaluate: {}",
                                   counted(sizes->samples, "sample")));
      return;
    }
    if (from_.has_trainer) return;
    draft_.set(kTrainer, "eval_strategy", "epoch");
    draft_.set(kTrainer, "save_strategy", "epoch");
    draft_.set(kTrainer, "load_best_model_at_end", "true", "the result is that of the epoch with the least eval_loss");
  }

  const InitArguments& arguments_;
  FromTrainer from_;
  std::optional<data::FileSample> sample_;
  std::optional<ColumnRoles> roles_;
  Draft draft_;
  std::vector<std::string> notes_;
  std::string missing_model_;  // that the first sizes lacked
};

void require_absent(const std::string& output) {
  std::error_code ignored;
  core::require(!std::filesystem::exists(std::filesystem::symlink_status(output, ignored)), ErrorKind::kUsage,
                "{} exists, and neoloom init overwrites nothing: give another name with --output, or move the file",
                output);
}

}  // namespace

int run_init(comm::MpiSession& session, const InitArguments& arguments) {
  const Placement here = assign_devices(session, "cpu", /*threads_option=*/0);
  session.run_on_root([&]() -> std::string {
    require_absent(arguments.output);
    Beginning beginning(arguments);
    beginning.fill(int64_t{here.threads} * session.local_size(),
                   [&](const auto& what, const auto& unit) { return shown_progress(session, "auto", what, unit); });
    const std::string yaml = beginning.yaml();
    require_absent(arguments.output);
    core::write_output_file(arguments.output, yaml);
    core::print_output(fmt::format("{}wrote {}\n{}\n", beginning.report(), arguments.output, beginning.next()));
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
